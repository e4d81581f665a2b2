"""Bodies, field by field: what the kernel is asked, and what is refused."""

from __future__ import annotations

import pytest

from lmx_kernel.testing.stub_kernel import MODEL
from lmx_kernel.types import (
    ChatPrompt,
    Constraint,
    Message,
    SamplingRequest,
    TextPart,
    TextPrompt,
    Tool,
    ToolCall,
)

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}


def said(role, text, **fields):
    return Message(role, (TextPart(text),), **fields)


async def test_a_conversation(api):
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi", "images": []},
        {"role": "assistant", "content": "Hello", "thinking": "Who is it?"},
    ]
    request = await api.asked(messages=messages)
    assert request.model == MODEL
    assert request.prompt == ChatPrompt(
        (said("system", "Be brief."), said("user", "Hi"),
         said("assistant", "Hello", reasoning="Who is it?"))
    )  # fmt: skip
    assert request.sampling == SamplingRequest()
    assert (request.max_tokens, request.context_tokens, request.stop) == (None, None, ())
    assert (request.constraint, request.logprobs, request.reasoning_tokens) == (None, None, None)


async def test_tools_and_results_without_ids(api):
    def call(name):
        return {"function": {"name": name, "arguments": {"city": "Rome"}}}

    messages = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "", "tool_calls": [call("weather"), call("news")]},
        {"role": "tool", "content": "quiet", "tool_name": "news"},
        {"role": "tool", "content": "sunny"},
        {"role": "assistant", "tool_calls": [{**call("weather"), "id": "mine"}]},
        {"role": "tool", "content": "rain", "tool_call_id": "mine", "tool_name": "weather"},
    ]
    prompt = (await api.asked(messages=messages, tools=[WEATHER])).prompt
    assert prompt.tools == (Tool(name="weather", parameters=SCHEMA),)
    assert prompt.messages[1].tool_calls == (
        ToolCall("call_0", "weather", '{"city":"Rome"}'),
        ToolCall("call_1", "news", '{"city":"Rome"}'),
    )
    assert [(one.tool_call_id, one.name) for one in prompt.messages if one.role == "tool"] == [
        ("call_1", "news"),
        ("call_0", None),
        ("mine", "weather"),
    ]


async def test_no_tools_at_all(api):
    assert (await api.asked(tools=[])).prompt.tools == ()
    assert (await api.asked(tools=None)).prompt.tools == ()


async def test_a_prompt(api):
    assert (await api.asked("generate")).prompt == ChatPrompt((said("user", "Hi"),))
    prompt = (await api.asked("generate", system="Be brief.", context=[1, 2])).prompt
    assert prompt == ChatPrompt((said("system", "Be brief."), said("user", "Hi")))
    assert (await api.asked("generate", raw=True, system="x")).prompt == TextPrompt("Hi")


async def test_a_model_that_does_not_chat_continues_the_prompt(api, card):
    api.kernel.cards.append(card("base", capabilities=frozenset({"completion"})))
    assert (await api.asked("generate", model="base")).prompt == TextPrompt("Hi")
    prompt = (await api.asked("generate", model="base", system="Be brief.")).prompt
    assert prompt == TextPrompt("Be brief.\n\nHi")


@pytest.mark.parametrize("path", ["chat", "generate"])
async def test_options(api, path):
    options = {
        "num_ctx": 64.0,
        "num_predict": 16,
        "temperature": 0,
        "top_k": 7.0,
        "top_p": 0.5,
        "min_p": 0.1,
        "repeat_penalty": 1.1,
        "presence_penalty": 0.2,
        "frequency_penalty": 0.3,
        "seed": 5.0,
        "lmx_reproducible": True,
        "stop": ["END", ""],
        "mirostat": 1,
        "num_gpu": 99,
        "unheard_of": {},
    }
    request = await api.asked(path, options=options)
    assert request.sampling == SamplingRequest(
        temperature=0,
        top_k=7,
        top_p=0.5,
        min_p=0.1,
        repetition_penalty=1.1,
        presence_penalty=0.2,
        frequency_penalty=0.3,
        seed=5,
    )
    assert (request.max_tokens, request.context_tokens, request.stop) == (16, 64, ("END",))
    assert request.reproducible


@pytest.mark.parametrize("none", [-2, -1, 0, None])
async def test_values_for_no_limit(api, none):
    options = {"num_predict": none, "num_ctx": none, "seed": -1, "top_k": -1, "stop": "END"}
    request = await api.asked(options=options)
    assert (request.max_tokens, request.context_tokens) == (None, None)
    assert (request.sampling.seed, request.sampling.top_k) == (None, 0)
    assert request.stop == ("END",)


@pytest.mark.parametrize("path", ["chat", "generate"])
async def test_formats(api, path):
    assert (await api.asked(path, format="json")).constraint == Constraint("json_object")
    constraint = (await api.asked(path, format=SCHEMA)).constraint
    assert constraint.kind == "json_schema"
    assert constraint.param == "format"
    assert (await api.asked(path, format="")).constraint is None
    assert "format" in await api.refusal(path, format="xml")


@pytest.mark.parametrize("path", ["chat", "generate"])
@pytest.mark.parametrize(
    ("think", "options", "tokens"),
    [
        (True, {"enable_thinking": True}, None),
        (False, {"enable_thinking": False}, 0),
        ("low", {"enable_thinking": True, "reasoning_effort": "low"}, None),
        (None, {}, None),
    ],
)
async def test_thinking(api, path, think, options, tokens):
    request = await api.asked(path, think=think)
    assert (request.prompt.options, request.reasoning_tokens) == (options, tokens)


async def test_logprobs(api):
    assert (await api.asked(logprobs=True)).logprobs == 0
    assert (await api.asked("generate", logprobs=True, top_logprobs=3)).logprobs == 3
    assert (await api.asked(logprobs=False, top_logprobs=3)).logprobs is None


@pytest.mark.parametrize(
    ("name", "known"),
    [
        (f"{MODEL}:latest", MODEL),
        (f"hf.co/{MODEL}", MODEL),
        (f"hf.co/{MODEL}:latest", MODEL),
        ("big:Q4_K_M", "big@Q4_K_M"),
        ("hf.co/big:q4_k_m", "big@Q4_K_M"),
        ("small:q8_0", "small"),
        ("with:colon", "with:colon"),
    ],
)
async def test_names_of_models(api, card, name, known):
    api.kernel.cards += [card("big@Q4_K_M"), card("small", quantization="Q8_0"), card("with:colon")]
    assert (await api.asked(model=name)).model == known


@pytest.mark.parametrize("name", ["nope", "nope:latest", "nope:7b", f"{MODEL}:q2_k"])
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("chat", {"messages": [{"role": "user", "content": "Hi"}]}),
        ("chat", {}),
        ("generate", {"prompt": "Hi"}),
        ("generate", {"keep_alive": 0}),
        ("embed", {"input": "Hi"}),
        ("embeddings", {"prompt": "Hi"}),
        ("show", {}),
    ],
)
async def test_an_unknown_model_is_told_by_the_name_that_was_asked_for(api, path, body, name):
    answer = await api.post(path, {"model": name, **body})
    assert answer.status_code == 404
    assert answer.json() == {"error": f"model '{name}' not found"}


@pytest.mark.parametrize(
    ("path", "fields", "where"),
    [
        ("chat", {"messages": [{"role": "user", "images": ["aGk="]}]}, "messages[0].images"),
        ("chat", {"messages": [{"role": "wizard", "content": ""}]}, "messages[0].role"),
        ("chat", {"messages": [{"role": "user", "tool_calls": [{"function": {"name": "f"}}]}]},
         "messages[0].tool_calls"),
        ("chat", {"tools": [{"type": "magic", "function": {"name": "f"}}]}, "tools[0].type"),
        ("chat", {"tools": [{"function": {"name": "f f"}}]}, "tools[0].function.name"),
        ("chat", {"tools": [{"type": "function"}]}, "tools[0].function"),
        ("chat", {"prompt": "Hi", "messages": None}, "/api/generate"),
        ("generate", {"messages": [], "prompt": None}, "/api/chat"),
        ("generate", {"suffix": "}"}, "suffix"),
        ("generate", {"template": "{{ .Prompt }}"}, "template"),
        ("generate", {"images": ["aGk="]}, "images"),
        ("generate", {"width": 64}, "width"),
        ("chat", {"options": {"temperature": "hot"}}, "options.temperature"),
        ("chat", {"options": {"temperature": -1}}, "options.temperature"),
        ("chat", {"think": "hard"}, "think"),
        ("chat", {"keep_alive": "soon"}, "keep_alive"),
        ("chat", {"keep_alive": "5 m"}, "keep_alive"),
        ("chat", {"stream": "yes"}, "stream"),
        ("chat", {"model": ""}, "model"),
        ("chat", {"top_logprobs": 21}, "top_logprobs"),
    ],
)  # fmt: skip
async def test_a_refusal_names_the_field(api, path, fields, where):
    assert where in await api.refusal(path, **fields)
    assert not api.kernel.answers


async def test_values_that_ask_for_nothing_are_accepted(api):
    await api.asked("generate", suffix="", template="", images=[], width=0, context=[])
    await api.asked(options={}, format=None, keep_alive=None, stream=None)


async def test_what_is_no_json(api):
    answer = await api.post("chat", b"{")
    assert answer.status_code == 400
    assert "JSON" in answer.json()["error"]
