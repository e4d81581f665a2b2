"""A small real model that calls and writes as it must, through the unmodified SDK.

It was never trained for any of it: what holds here, the masks hold.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path

import httpx2
import jsonschema
import openai
import pytest
import pytest_asyncio

from lmx_kernel.testing.harness import running_daemon

MODEL = "smollm2-135m-instruct"
HI = [{"role": "user", "content": "What is the weather in Rome and in Oslo?"}]
TEXT = {"type": "string", "maxLength": 24}
PLACE = {
    "type": "object",
    "properties": {
        "city": TEXT,
        "unit": {"enum": ["celsius", "fahrenheit"]},
        "days": {"type": "array", "items": {"type": "integer", "maximum": 99}, "maxItems": 3},
    },
    "required": ["city", "unit", "days"],
    "additionalProperties": False,
}
SCHEMAS = [
    PLACE,
    {"type": "array", "items": TEXT, "minItems": 2, "maxItems": 4},
    {"anyOf": [{"type": "boolean"}, {"type": "null"}]},
    {
        "type": "object",
        "properties": {"name": TEXT, "next": {"$ref": "#/$defs/node"}},
        "required": ["name", "next"],
        "$defs": {
            "node": {
                "type": "object",
                "properties": {"value": {"enum": [1, 2.5, "three"]}},
                "required": ["value"],
                "additionalProperties": False,
            }
        },
        "additionalProperties": False,
    },
]
TOOLS = [
    {"type": "function", "function": {"name": "weather", "parameters": PLACE}},
    {
        "type": "function",
        "function": {"name": "search", "parameters": {"properties": {"query": TEXT}}},
    },
]
NAMED = {"type": "function", "function": {"name": "weather"}}

both = pytest.mark.parametrize("stream", [False, True])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def url(tmp_path_factory):
    """Where a daemon serves the demo model and nothing else."""
    models = Path(os.environ.get("LMX_HOME") or "~/.lmx").expanduser() / "models"
    if not (models / MODEL).exists():
        pytest.fail("the demo model is missing: run `make demo`")
    path = tmp_path_factory.mktemp("home") / "config.toml"
    path.write_text(
        f"[model_folders]\nhome = false\nhugging_face = false\nlm_studio = false\n"
        f'paths = ["{models}"]\n'
    )
    async with running_daemon(path) as daemon:
        yield daemon.url


@pytest.fixture
async def sdk(url):
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0) as sdk:
        yield sdk


async def ask(sdk, *, stream, **fields):
    """Return the whole answer, or the sum of a stream."""
    asked = {"model": MODEL, "messages": HI, "max_tokens": 250, **fields}
    if not stream:
        return await sdk.chat.completions.create(**asked)
    try:
        async with sdk.chat.completions.stream(**asked) as chunks:
            return await chunks.get_final_completion()
    except openai.LengthFinishReasonError as error:  # one of several candidates came to no end
        return error.completion


@both
@pytest.mark.parametrize("choice", ["required", NAMED])
async def test_calls_that_must_be_made_are_valid(sdk, stream, choice):
    answer = await ask(sdk, stream=stream, n=4, seed=1, tools=TOOLS, tool_choice=choice)
    schemas = {tool["function"]["name"]: tool["function"]["parameters"] for tool in TOOLS}
    for candidate in answer.choices:
        assert candidate.finish_reason in ("tool_calls", "length")
        *calls, last = candidate.message.tool_calls
        for call in calls if candidate.finish_reason == "length" else [*calls, last]:
            jsonschema.validate(json.loads(call.function.arguments), schemas[call.function.name])
            assert choice == "required" or call.function.name == "weather"
    assert any(candidate.finish_reason == "tool_calls" for candidate in answer.choices)


@both
async def test_a_single_call_ends_the_answer(sdk, stream):
    answer = await ask(
        sdk,
        stream=stream,
        n=4,
        seed=2,
        tools=TOOLS,
        tool_choice="required",
        parallel_tool_calls=False,
    )
    for candidate in answer.choices:
        assert candidate.finish_reason == "tool_calls"
        assert len(candidate.message.tool_calls) == 1
        assert candidate.message.content is None or not candidate.message.content


@both
@pytest.mark.parametrize("schema", SCHEMAS, ids=range(len(SCHEMAS)))
async def test_answers_fit_their_schema(sdk, stream, schema):
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": True}}
    answer = await ask(sdk, stream=stream, n=4, seed=3, temperature=1.2, response_format=form)
    for candidate in answer.choices:
        assert candidate.finish_reason == "stop"
        jsonschema.validate(json.loads(candidate.message.content), schema)


async def test_calls_survive_a_worker_that_dies_inside_their_arguments(sdk, url):
    async def call(seed):
        chunks = await sdk.chat.completions.create(
            model=MODEL,
            messages=HI,
            stream=True,
            seed=seed,
            tools=TOOLS,
            tool_choice=NAMED,
            parallel_tool_calls=False,
        )
        text = ""
        async for chunk in chunks:
            for part in chunk.choices[0].delta.tool_calls or ():
                text += part.function.arguments
                if len(text) > 20 and not fallen:
                    fallen.append(True)
                    os.kill(worker["pid"], signal.SIGKILL)
        return json.loads(text)

    async with httpx2.AsyncClient(base_url=url, timeout=60) as http:
        fallen = [True]
        await call(0)  # so that there is a worker
        [worker] = (await http.get("/health/status")).json()["models"]
        fallen.clear()
        for arguments in await asyncio.gather(*map(call, range(4))):
            jsonschema.validate(arguments, PLACE)
        [other] = (await http.get("/health/status")).json()["models"]
        assert fallen
        assert other["pid"] != worker["pid"]
