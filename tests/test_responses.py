"""Responses from a whole daemon with fake models, through the unmodified SDK."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import httpx2
import openai
import pytest
import pytest_asyncio

from lmx_kernel.testing.fake_model import FakeModel
from lmx_kernel.testing.harness import running_daemon, write_config, write_fake_models

PLUGIN = "lmx_responses_api.plugin"
# A daemon that was killed may start in safe mode.
ENV = {"LMX_PLUGINS_REQUIRED": f'["lmx_kernel.testing.fake", "{PLUGIN}"]'}
PATCH_TEXT = "*** Begin Patch\n+ 'x'\n"
PATCH = json.dumps({"name": "patch", "arguments": {"input": PATCH_TEXT}})
SPAWN = json.dumps({"name": "spawn", "arguments": {"id": 1}})
CALLS = f"<tool_call>\n{PATCH}\n</tool_call>\n<tool_call>\n{SPAWN}\n</tool_call>"
SCRIPTS = {
    "counter": FakeModel(answer_tokens=8),
    "caller": FakeModel(says=f"<think>Hm.</think>So.{CALLS}"),
    "small": FakeModel(answer_tokens=8, context_length=200),
    "faller": FakeModel(answer_tokens=50, crash_at=20, times=100),
}
SPAWNING = {
    "type": "function",
    "name": "spawn",
    "parameters": {"properties": {"id": {"type": "integer"}}},
}
TOOLS = [
    {"type": "custom", "name": "patch"},
    {"type": "namespace", "name": "agents", "tools": [SPAWNING]},
    {"type": "web_search"},
]


def frames_of(text):
    """Return the events of a stream, as far as it came, but for heartbeats."""
    frames = [frame.split("data: ", 1)[1] for frame in text.split("\n\n")[:-1]]
    events = [json.loads(frame) for frame in frames]
    return [event for event in events if event["type"] != "keepalive"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def url(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """Where a daemon serves a model for each of ``SCRIPTS``."""
    home = tmp_path_factory.mktemp("home")
    write_fake_models(home, SCRIPTS)
    async with running_daemon(write_config(home, (PLUGIN,))) as daemon:
        yield daemon.url


@pytest.fixture
async def sdk(url: str) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0) as sdk:
        yield sdk


async def test_a_warm_up_of_no_text(sdk):
    response = await sdk.responses.create(model="counter", input="", max_output_tokens=1)
    assert (response.status, response.usage.output_tokens) == ("incomplete", 1)


async def test_a_turn_with_calls_and_the_next(sdk):
    async with sdk.responses.stream(model="caller", input="Hi", tools=TOOLS) as stream:
        first = await stream.get_final_response()
    assert [item.type for item in first.output] == [
        "reasoning",
        "message",
        "custom_tool_call",
        "function_call",
    ]
    patch, spawn = first.output[2:]
    assert (patch.name, patch.input) == ("patch", PATCH_TEXT)
    assert (spawn.name, spawn.namespace) == ("spawn", "agents")
    assert json.loads(spawn.arguments) == {"id": 1}
    outputs = [
        {"type": "custom_tool_call_output", "call_id": patch.call_id, "output": "Done"},
        {"type": "function_call_output", "call_id": spawn.call_id, "output": "Started"},
    ]
    second = await sdk.responses.create(
        model="caller", input=outputs, tools=TOOLS, previous_response_id=first.id
    )
    assert second.status == "completed"
    assert second.usage.input_tokens > first.usage.input_tokens + first.usage.output_tokens // 2
    again = await sdk.responses.retrieve(first.id)
    assert [item.id for item in again.output] == [item.id for item in first.output]
    assert again.output_text == first.output_text


async def test_a_grammar_holds_the_input_of_a_tool(sdk):
    grammar = {"type": "grammar", "syntax": "lark", "definition": 'start: "ab" "cd"'}
    response = await sdk.responses.create(
        model="counter",
        input="Hi",
        tools=[{"type": "custom", "name": "patch", "format": grammar}],
        tool_choice={"type": "custom", "name": "patch"},
    )
    (call,) = response.output
    assert (call.type, call.name, call.input) == ("custom_tool_call", "patch", "abcd")


@pytest.mark.parametrize("stream", [False, True])
async def test_a_prompt_that_is_too_long(sdk, stream):
    with pytest.raises(openai.BadRequestError) as caught:
        await sdk.responses.create(model="small", input="x " * 200, stream=stream)
    assert caught.value.code == "context_length_exceeded"
    # Long answers are no error: they have as many tokens as there is room.
    await sdk.responses.create(model="small", input="x", max_output_tokens=32000)


async def test_a_prompt_is_shortened_where_that_is_asked_for(sdk):
    items = [{"role": "user", "content": f"{number} " + "x" * 40} for number in range(20)]
    response = await sdk.responses.create(model="small", input=items, truncation="auto")
    assert response.status == "completed"
    assert 40 < response.usage.input_tokens <= 150


async def test_a_worker_that_crashes_ends_in_response_failed(url):
    body = {"model": "faller", "input": "Hi", "stream": True}
    async with httpx2.AsyncClient(base_url=url, timeout=60) as http:
        answer = await http.post("/v1/responses", json=body)
    last = frames_of(answer.text)[-1]
    assert last["type"] == "response.failed"
    assert last["response"]["error"]["code"] == "server_error"


async def test_a_response_in_the_background_survives_the_daemon(tmp_path: Path):
    write_fake_models(tmp_path, {"m": FakeModel(answer_tokens=60, tokens_per_s=60)})
    config = write_config(tmp_path, (PLUGIN,))
    body = {"model": "m", "input": "Hi", "background": True, "stream": True}
    text = ""
    async with (
        running_daemon(config, **ENV) as daemon,
        httpx2.AsyncClient(base_url=daemon.url, timeout=60) as http,
    ):
        with suppress(httpx2.TransportError):
            async with http.stream("POST", "/v1/responses", json=body) as answer:
                async for piece in answer.aiter_text():
                    text += piece
                    if daemon.process.returncode is None and "output_text.delta" in text:
                        daemon.process.kill()
                        await daemon.process.wait()
    seen = frames_of(text)
    path, last = f"/v1/responses/{seen[0]['response']['id']}", seen[-1]["sequence_number"]
    async with (
        running_daemon(config, **ENV) as daemon,
        httpx2.AsyncClient(base_url=daemon.url, timeout=60) as http,
    ):
        query = {"stream": "true", "starting_after": last}
        rest = frames_of((await http.get(path, params=query)).text)
        whole = frames_of((await http.get(path, params={"stream": "true"})).text)
        response = (await http.get(path)).json()
    numbers = [event["sequence_number"] for event in [*seen, *rest]]
    assert numbers == list(range(len(whole)))
    assert [*seen, *rest] == whole
    assert whole[-1]["type"] == "response.completed"
    assert whole[-1]["response"] == response
    words = response["output"][0]["content"][0]["text"].split()
    assert [int(word) - int(words[0]) for word in words] == list(range(60))
