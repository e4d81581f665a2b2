"""Whole responses: what is asked of the kernel, and what is answered."""

from __future__ import annotations

import pytest
from lmx_responses_api.sealed import seal

from lmx_kernel.errors import ContextOverflowError, QueueFullError
from lmx_kernel.testing.stub_kernel import MODEL
from lmx_kernel.types import Constraint, Priority, TextDelta

# Open Responses' ResponseResource: every one of these must be there.
KEYS = {
    "id",
    "object",
    "created_at",
    "completed_at",
    "status",
    "incomplete_details",
    "model",
    "previous_response_id",
    "instructions",
    "output",
    "error",
    "tools",
    "tool_choice",
    "truncation",
    "parallel_tool_calls",
    "text",
    "top_p",
    "presence_penalty",
    "frequency_penalty",
    "top_logprobs",
    "temperature",
    "reasoning",
    "usage",
    "max_output_tokens",
    "max_tool_calls",
    "store",
    "background",
    "service_tier",
    "metadata",
    "safety_identifier",
    "prompt_cache_key",
}
USER = {"role": "user", "content": "Hi"}


async def test_a_text_is_answered(api):
    response = await api.sdk.responses.create(model=MODEL, input="Hi", metadata={"a": "b"})
    assert response.output_text == "Hello"
    assert (response.status, response.model, response.object) == ("completed", MODEL, "response")
    assert response.metadata == {"a": "b"}
    assert response.usage.input_tokens == 7
    assert response.usage.input_tokens_details.cached_tokens == 4
    assert (response.usage.output_tokens, response.usage.total_tokens) == (3, 10)
    assert response.completed_at >= response.created_at
    assert api.said == [("user", "Hi")]


async def test_every_key_is_there(api):
    response = await api.made()
    assert response.keys() >= KEYS
    assert (response["store"], response["truncation"]) == (True, "disabled")
    sampling = api.request.sampling
    assert (response["temperature"], response["top_p"]) == (sampling.temperature, sampling.top_p)


@pytest.mark.parametrize("empty", ["", []])
async def test_no_input_still_makes_a_prompt(api, empty):
    response = await api.made(input=empty, max_output_tokens=1)
    assert response["status"] == "completed"
    assert api.said == [("user", "")]
    assert api.request.max_tokens == 1


async def test_instructions_come_first(api):
    await api.made(instructions="Be brief.", input=[{"role": "developer", "content": "Or not."}])
    assert api.said == [("system", "Be brief."), ("developer", "Or not."), ("user", "")]


async def test_items_become_turns(api):
    items = [
        {"role": "system", "content": "Be brief."},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "A"}]},
        {"role": "user", "content": "B"},
        {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "H"}]},
        {"role": "assistant", "content": [{"type": "output_text", "text": "C"}]},
        {"type": "function_call", "call_id": "c1", "name": "ls", "arguments": '{"a": '},
        {"type": "custom_tool_call", "call_id": "c2", "name": "patch", "input": 'say "x"'},
        {"type": "function_call_output", "call_id": "c1", "output": "out"},
        {
            "type": "custom_tool_call_output",
            "call_id": "c2",
            "output": [{"type": "input_text", "text": "ok "}, {"type": "input_image"}],
        },
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]},
    ]
    await api.made(input=items)
    assert api.said == [
        ("system", "Be brief."),
        ("user", "A"),
        ("user", "B"),
        ("assistant", "C"),
        ("tool", "out"),
        ("tool", "ok [input_image left out: text only]"),
        ("assistant", "No."),
    ]
    turn = api.prompt.messages[3]
    assert turn.reasoning == "H"
    assert [(call.id, call.name, call.arguments) for call in turn.tool_calls] == [
        ("c1", "ls", '{"a": '),
        ("c2", "patch", '{"input":"say \\"x\\""}'),
    ]
    assert [message.tool_call_id for message in api.prompt.messages[4:6]] == ["c1", "c2"]


@pytest.mark.parametrize(
    ("item", "reasoning"),
    [
        ({"summary": [], "encrypted_content": seal("Hm ü")}, "Hm ü"),
        ({"summary": [{"type": "summary_text", "text": "S"}], "encrypted_content": "gAAA"}, "S"),
        ({"summary": [], "encrypted_content": "gAAA"}, None),
        ({"summary": [], "encrypted_content": "lmx1.###"}, None),
    ],
)
async def test_reasoning_comes_back(api, item, reasoning):
    items = [USER, {"type": "reasoning", **item}, {"role": "assistant", "content": "A"}]
    await api.made(input=items)
    assert api.prompt.messages[1].reasoning == reasoning


async def test_reasoning_is_an_item(api):
    api.kernel.play = api.play(*api.thoughts("H", "m"), *api.texts("Yes"))
    include, reasoning = ["reasoning.encrypted_content"], {"effort": "high", "summary": "auto"}
    response = await api.sdk.responses.create(
        model=MODEL, input="Hi", include=include, reasoning=reasoning, store=False
    )
    thought, message = response.output
    assert [part.text for part in thought.content] == ["Hm"]
    assert [part.text for part in thought.summary] == ["Hm"]
    assert message.content[0].text == "Yes"
    assert api.prompt.options == {"enable_thinking": True, "reasoning_effort": "high"}
    again = [
        thought.model_dump(exclude={"content", "summary"}) | {"summary": []},
        message.to_dict(),
    ]
    await api.made(input=[USER, *again])
    assert api.prompt.messages[1].reasoning == "Hm"


async def test_no_reasoning(api):
    await api.made(reasoning={"effort": "none"})
    assert api.prompt.options == {"enable_thinking": False}
    assert api.request.reasoning_tokens == 0


async def test_the_limit_makes_it_incomplete(api):
    api.kernel.play = api.play(*api.texts("Hel"), reason="length")
    response = await api.sdk.responses.create(model=MODEL, input="Hi", max_output_tokens=1)
    assert response.status == "incomplete"
    assert response.incomplete_details.reason == "max_output_tokens"
    assert response.output[0].status == "incomplete"
    assert response.completed_at is None


async def test_nothing_is_an_empty_message(api):
    api.kernel.play = api.play()
    response = await api.sdk.responses.create(model=MODEL, input="Hi")
    assert (response.output[0].type, response.output_text) == ("message", "")


async def test_probabilities_of_tokens(api, logprob):
    tokens = (logprob(b"Hel", b"No"),), (logprob(b"l", b"x"),), (logprob(b"o", b"y"),)
    pieces = zip(("Hel", "", "lo"), tokens, strict=True)
    api.kernel.play = api.play(*(TextDelta(0, text, (1,), found) for text, found in pieces))
    response = await api.sdk.responses.create(model=MODEL, input="Hi", top_logprobs=2)
    assert api.request.logprobs == 2
    shown = response.output[0].content[0].logprobs
    assert [token.token for token in shown] == ["Hel", "l", "o"]
    assert [token.token for token in shown[0].top_logprobs] == ["Hel", "No"]
    await api.made(include=["message.output_text.logprobs"])
    assert api.request.logprobs == 0
    assert (await api.made())["output"][0]["content"][0]["logprobs"] == []
    assert api.request.logprobs is None


@pytest.mark.parametrize(
    ("text", "constraint"),
    [
        ({"format": {"type": "text"}, "verbosity": "low"}, None),
        ({"format": {"type": "json_object"}}, Constraint("json_object")),
        (
            {"format": {"type": "json_schema", "name": "x", "schema": {"a": 1}, "strict": True}},
            Constraint("json_schema", '{"a":1}'),
        ),
    ],
)
async def test_formats(api, text, constraint):
    response = await api.made(text=text)
    assert api.request.constraint == constraint
    assert response["text"] == {"verbosity": "medium", **text}


async def test_sampling(api):
    given = {"temperature": 0.5, "top_p": 0.0, "presence_penalty": 1.0, "top_k": -1, "seed": 3}
    await api.made(**given, lmx_reproducible=True)
    assert api.request.reproducible
    sampling = api.request.sampling
    assert (sampling.temperature, sampling.top_k, sampling.seed) == (0.5, 0, 3)
    assert 0 < sampling.top_p < 0.01
    assert sampling.presence_penalty == 1.0


async def test_what_has_no_effect_is_accepted(api):
    more = {
        "client_metadata": {"a": "{}"},
        "prompt_cache_key": "thread",
        "safety_identifier": "u",
        "service_tier": "auto",
        "stream_options": {"include_obfuscation": False},
        "max_tool_calls": 3,
        "include": ["web_search_call.action.sources"],
    }
    response = await api.made(**more)
    assert (response["prompt_cache_key"], response["max_tool_calls"]) == ("thread", 3)


async def test_a_service_tier_is_answered_with_what_it_got(api):
    assert (await api.made(service_tier="priority"))["service_tier"] == "default"
    assert (await api.made(service_tier="flex"))["service_tier"] == "flex"
    assert api.kernel.answers[1].request.priority is Priority.LOW


async def test_tokens_are_counted(api):
    counted = await api.sdk.responses.input_tokens.count(model=MODEL, input="Hi")
    assert (counted.object, counted.input_tokens) == ("response.input_tokens", 7)
    assert not api.kernel.answers


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": None}, "input"),
        ({"input": 3}, "input"),
        ({"input": [{"content": "Hi"}]}, "input[0].type"),
        ({"input": [{"role": "robot", "content": "Hi"}]}, "input[0].role"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_text"}]}]},
            "input[0].content[0].text",
        ),
        ({"input": [{"type": "function_call", "name": "x"}]}, "input[0].call_id"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0]"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image"}]}]},
            "input[0].content[0]",
        ),
        ({"input": [{"type": "computer_call_output", "output": {}}]}, "input[0].type"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"prompt": {"id": "x"}}, "prompt"),
        ({"messages": [USER]}, "messages"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"top_logprobs": 21}, "top_logprobs"),
        ({"metadata": {str(i): "" for i in range(17)}}, "metadata"),
        ({"background": True, "store": False}, "background"),
        ({"text": {"format": {"type": "json_schema"}}}, "text.format.schema"),
        ({"reasoning": {"effort": "huge"}}, "reasoning.effort"),
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
    ],
)
async def test_refused_by_name(api, fields, param):
    error = await api.refused(**fields)
    assert (error["type"], error["param"]) == ("invalid_request_error", param)


async def test_a_chat_body_is_sent_to_its_path(api):
    answer = await api.http.post("/v1/responses", json={"model": MODEL, "messages": [USER]})
    assert answer.status_code == 400
    assert "/v1/chat/completions" in answer.json()["error"]["message"]


async def test_errors_of_the_kernel(api):
    api.kernel.refusal = ContextOverflowError("too long")
    answer = await api.post()
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "context_length_exceeded")
    api.kernel.refusal = QueueFullError("full", retry_after_s=5)
    answer = await api.post(stream=True)
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "5")
    assert answer.headers["x-should-retry"] == "true"
