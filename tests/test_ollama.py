"""Ollama's dialect through a daemon with fake models and the unmodified Python client."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import httpx2
import ollama
import pytest
import pytest_asyncio

from lmx_kernel.testing.fake_model import FakeModel
from lmx_kernel.testing.harness import running_daemon, write_config, write_fake_models

SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 8}},
    "required": ["city"],
    "additionalProperties": False,
}
CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Rome"}}\n</tool_call>'
TOOLED = (
    "{% for t in tools or [] %}{{ t.function.name }}: {{ t.function.description }}\n{% endfor %}"
    "{% for m in messages %}{{ m.role }}: {{ m.content }}"
    "{% for c in m.tool_calls or [] %}<tool_call>{{ c.function|tojson }}</tool_call>{% endfor %}\n"
    "{% endfor %}assistant:"
)
SCRIPTS = {
    "counter": FakeModel(answer_tokens=8, template=TOOLED),
    "caller": FakeModel(says=f"A moment.{CALL}", template=TOOLED),
    "thinker": FakeModel(
        template="{{ messages[0].content }}{{ '<think>' if enable_thinking is not false }}",
        says="Who may it be?</think>Hello!",
    ),
    "talker": FakeModel(says="one two END three"),
    "small": FakeModel(context_length=64),
    "sour": FakeModel(answer_tokens=8, sour="vinegar"),
    "vectors": FakeModel(embeds=True),
    "doomed": FakeModel(answer_tokens=8),
}
KEY = "sesame"


def weather(city: str) -> str:
    """Tell the weather.

    Args:
        city: Where.
    """
    return f"sunny in {city}"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def url(tmp_path_factory) -> AsyncIterator[str]:
    """Where a daemon serves them to those who have the key."""
    home = tmp_path_factory.mktemp("home")
    write_fake_models(home, SCRIPTS)
    plugins = ("lmx_ollama_api.plugin", "lmx_openai_api.plugin")
    config = f'[server]\napi_key = "{KEY}"\n[ollama_api]\nheartbeat_s = 0.1\n'
    async with running_daemon(write_config(home, plugins, config)) as daemon:
        yield daemon.url


@pytest.fixture
async def sdk(url):
    headers = {"authorization": f"Bearer {KEY}"}
    async with ollama.AsyncClient(host=url, headers=headers, trust_env=False) as client:
        yield client


@pytest.fixture
def chat(sdk):
    """Return a function that asks, and returns the message and the last line of the answer."""

    async def chat(model, text="Hi", *, stream, **fields):
        messages = fields.pop("messages", [{"role": "user", "content": text}])
        answer = await sdk.chat(model, messages, stream=stream, **fields)
        lines = [line async for line in answer] if stream else [answer]
        message = ollama.Message(
            role=lines[0].message.role,
            content="".join(line.message.content for line in lines),
            thinking="".join(line.message.thinking or "" for line in lines),
            tool_calls=[call for line in lines for call in line.message.tool_calls or ()],
        )
        return message, lines[-1]

    return chat


both = pytest.mark.parametrize("stream", [False, True])


@both
async def test_chat(chat, stream):
    message, last = await chat("counter:latest", stream=stream)
    assert message.role == "assistant"
    assert len(message.content.split()) == 8
    assert (last.done, last.done_reason, last.eval_count) == (True, "stop", 9)  # the end counts
    assert last.prompt_eval_count == len("user: Hi\nassistant")
    assert last.total_duration >= last.eval_duration > 0


@both
async def test_generate(sdk, stream):
    answer = await sdk.generate("talker", "Hi", stream=stream, options={"stop": ["END"]})
    lines = [line async for line in answer] if stream else [answer]
    assert "".join(line.response for line in lines) == "one two "
    assert lines[-1].done_reason == "stop"


@both
async def test_tools_and_what_they_return(chat, stream):
    asked, last = await chat("caller", stream=stream, tools=[weather])
    (call,) = asked.tool_calls
    assert asked.content == "A moment."
    assert (call.function.name, call.function.arguments) == ("weather", {"city": "Rome"})
    assert last.done_reason == "stop"
    result = {"role": "tool", "tool_name": "weather", "content": weather(**call.function.arguments)}
    messages = [{"role": "user", "content": "Hi"}, asked, result]
    _, again = await chat("counter", stream=stream, messages=messages, tools=[weather])
    assert again.prompt_eval_count > last.prompt_eval_count


@both
async def test_a_schema_is_followed(chat, sdk, stream):
    message, _ = await chat("counter", stream=stream, format=SCHEMA)
    assert set(json.loads(message.content)) == {"city"}
    whole = await sdk.generate("counter", "Hi", format=SCHEMA, options={"num_predict": 200})
    assert set(json.loads(whole.response)) == {"city"}


async def test_any_json_is_followed(sdk):
    whole = await sdk.generate("counter", "Hi", format="json", options={"num_predict": 3})
    assert whole.response.lstrip().startswith("{")


@both
async def test_thinking(chat, stream):
    message, _ = await chat("thinker", stream=stream, think=True)
    assert (message.thinking, message.content) == ("Who may it be?", "Hello!")


@both
async def test_num_ctx_bounds_prompt_and_answer(chat, stream):
    prompt_tokens = len("user: Hi\nassistant:")
    _, last = await chat("small", stream=stream, options={"num_ctx": prompt_tokens + 4})
    assert (last.done_reason, last.eval_count) == ("length", 5)
    with pytest.raises(ollama.ResponseError, match="too long") as caught:
        await chat("small", stream=stream, options={"num_ctx": 8})
    assert caught.value.status_code == 400


@both
async def test_num_predict_and_seed(chat, stream):
    options = {"num_predict": 4, "seed": 7, "temperature": 1.5}
    first, last = await chat("counter", stream=stream, options=options)
    again, _ = await chat("counter", stream=not stream, options=options)
    assert (last.done_reason, last.eval_count) == ("length", 4)
    assert first.content == again.content


async def test_logprobs(chat):
    _, whole = await chat("counter", stream=False, logprobs=True, top_logprobs=2)
    assert len(whole.logprobs) == 8
    assert all(len(token.top_logprobs) == 2 for token in whole.logprobs)


async def test_embeddings(sdk):
    found = await sdk.embed("vectors", ["one", "two"], dimensions=1)
    assert [len(vector) for vector in found.embeddings] == [1, 1]
    assert found.prompt_eval_count > 0
    assert len((await sdk.embeddings("vectors", "one")).embedding) == 2
    with pytest.raises(ollama.ResponseError, match="embeddings"):
        await sdk.embed("counter", "one")


async def test_the_list_of_models_and_one_of_them(sdk):
    names = {model.model for model in (await sdk.list()).models}
    assert names >= {"counter", "vectors"}
    shown = await sdk.show("small")
    assert shown.modelinfo["fake.context_length"] == 64
    assert shown.parameters == "num_ctx 64"


async def test_a_model_comes_and_goes(sdk):
    loaded = await sdk.generate("talker", keep_alive="10m")
    assert (loaded.done, loaded.done_reason, loaded.response) == (True, "load", "")
    running = {model.model: model for model in (await sdk.ps()).models}
    assert running["talker"].context_length > 0
    assert running["talker"].size > 0
    gone = await sdk.chat("talker", [], keep_alive=0)
    assert (gone.done_reason, gone.message.content) == ("unload", "")
    assert "talker" not in {model.model for model in (await sdk.ps()).models}


async def test_a_model_that_may_not_stay_goes_after_its_answer(sdk):
    await sdk.generate("talker", "Hi", keep_alive=0)
    async with asyncio.timeout(30):
        while "talker" in {model.model for model in (await sdk.ps()).models}:
            await asyncio.sleep(0.05)


@both
async def test_errors(chat, sdk, stream):
    with pytest.raises(ollama.ResponseError, match="model 'nope' not found") as caught:
        await chat("nope", stream=stream)
    assert caught.value.status_code == 404
    with pytest.raises(ollama.ResponseError, match="not finite"):
        await chat("sour", "vinegar", stream=stream)
    seen = {"role": "user", "content": "Hi", "images": [b"x"]}
    with pytest.raises(ollama.ResponseError, match="images"):
        await chat("counter", messages=[seen], stream=stream)


async def test_a_model_is_deleted_also_while_it_is_loaded(sdk):
    await sdk.generate("doomed", "Hi")
    assert (await sdk.delete("doomed:latest")).status == "success"
    assert "doomed" not in {model.model for model in (await sdk.list()).models}


async def test_without_a_key(url):
    async with httpx2.AsyncClient(base_url=url) as http:
        answer = await http.get("/api/tags")
        assert (answer.status_code, list(answer.json())) == (401, ["error"])
        assert (await http.head("/")).status_code == 200
        assert (await http.post("/api/pull", json={"model": "a/b"})).status_code == 401
