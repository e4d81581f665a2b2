"""What agents need, through a daemon with fake models and the unmodified SDK."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Literal

import jsonschema
import openai
import pydantic
import pytest
import pytest_asyncio

from lmx_kernel.testing.fake_model import FakeModel
from lmx_kernel.testing.harness import running_daemon, write_config, write_fake_models

HI = [{"role": "user", "content": "Hi"}]
PLACE = {
    "type": "object",
    "properties": {
        "city": {"type": "string"},
        "days": {"type": "array", "items": {"type": "integer"}, "minItems": 2},
    },
    "required": ["city", "days"],
    "additionalProperties": False,
}
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": PLACE}}
NOW = {"type": "function", "function": {"name": "now"}}
ARGUMENTS = '{"city": "Rome", "days": [1, 2]}'
CALL = f'<tool_call>\n{{"name": "weather", "arguments": {ARGUMENTS}}}\n</tool_call>'
SCRIPTS = {
    "counter": FakeModel(answer_tokens=8),
    "caller": FakeModel(says=f"A moment.{CALL}"),
    "open-thinker": FakeModel(
        template="{{ messages[0].content }}{{ '<think>' if enable_thinking is not false }}",
        says="Who may it be?</think>Hello!",
    ),
    "thinker": FakeModel(says="<think>Who is it?</think>Hello!"),
    **{f"faller{n}": FakeModel(says=CALL, crash_at=CALL.index("Rome")) for n in range(2)},
    "masked-faller": FakeModel(answer_tokens=8, crash_at=60),
}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with a model for each of ``SCRIPTS``."""
    folder = tmp_path_factory.mktemp("home")
    write_fake_models(folder, SCRIPTS)
    return folder


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def url(home: Path) -> AsyncIterator[str]:
    """Where a daemon serves them."""
    async with running_daemon(write_config(home, ("lmx_openai_api.plugin",))) as daemon:
        yield daemon.url


@pytest.fixture
async def chat(url):
    """Return a function that asks a model, and returns the whole answer or the sum of a stream."""
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0) as sdk:

        async def chat(model, *, stream=False, **fields):
            asked = {"model": model, "messages": HI, **fields}
            if not stream:
                return await sdk.chat.completions.create(**asked)
            async with sdk.chat.completions.stream(**asked) as chunks:
                return await chunks.get_final_completion()

        chat.sdk = sdk
        yield chat


both = pytest.mark.parametrize("stream", [False, True])


@both
async def test_a_call_that_a_model_writes_is_a_call(chat, stream):
    (choice,) = (await chat("caller", stream=stream, tools=[WEATHER, NOW])).choices
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content == "A moment."
    (call,) = choice.message.tool_calls
    assert call.id
    assert (call.type, call.function.name) == ("function", "weather")
    assert call.function.arguments == ARGUMENTS


@both
@pytest.mark.parametrize("fields", [{}, {"tools": [WEATHER], "tool_choice": "none"}])
async def test_it_is_text_where_nothing_may_be_called(chat, stream, fields):
    (choice,) = (await chat("caller", stream=stream, **fields)).choices
    assert choice.message.content == SCRIPTS["caller"].says
    assert not choice.message.tool_calls
    assert choice.finish_reason == "stop"


async def test_arguments_come_while_they_are_written(chat):
    chunks = await chat.sdk.chat.completions.create(
        model="caller", messages=HI, tools=[WEATHER], stream=True
    )
    deltas = [chunk.choices[0].delta async for chunk in chunks]
    parts = [call for delta in deltas for call in delta.tool_calls or ()]
    assert len([part for part in parts if part.function.arguments]) > 1


@both
async def test_thoughts_are_no_text(chat, stream):
    answer = await chat(
        "thinker", stream=stream, stream_options={"include_usage": True} if stream else openai.omit
    )
    (choice,) = answer.choices
    assert choice.message.content == "Hello!"
    assert choice.message.reasoning_content == "Who is it?"
    assert answer.usage.completion_tokens_details.reasoning_tokens > len("Who is it?")


@pytest.mark.parametrize(
    ("fields", "thought", "text"),
    [
        ({}, "Who may it be?", "Hello!"),
        ({"reasoning_budget": 3}, "Who", SCRIPTS["open-thinker"].says[3 + len("</think>") :]),
        ({"reasoning_effort": "low"}, "Who may it be?", "Hello!"),
        ({"reasoning_effort": "none"}, None, "Who may it be?</think>Hello!"),
        (
            {"chat_template_kwargs": {"enable_thinking": False}},
            None,
            "Who may it be?</think>Hello!",
        ),
    ],
)
async def test_how_long_a_model_thinks(chat, fields, thought, text):
    (choice,) = (await chat("open-thinker", extra_body=fields)).choices
    assert getattr(choice.message, "reasoning_content", None) == thought
    assert choice.message.content == text


@both
@pytest.mark.parametrize(
    ("choice", "name"),
    [
        ("required", "weather"),
        ({"type": "function", "function": {"name": "now"}}, "now"),
        ({"type": "function", "function": {"name": "weather"}}, "weather"),
    ],
)
async def test_a_model_that_never_calls_does_if_it_must(chat, stream, choice, name):
    answer = await chat(
        "counter",
        stream=stream,
        n=2,
        tools=[WEATHER, NOW],
        tool_choice=choice,
        parallel_tool_calls=False,
    )
    for candidate in answer.choices:
        assert candidate.finish_reason == "tool_calls"
        (call,) = candidate.message.tool_calls
        arguments = json.loads(call.function.arguments)
        if call.function.name == "weather":
            jsonschema.validate(arguments, PLACE)
        assert choice == "required" or call.function.name == name
    assert len(answer.choices) == 2


@both
async def test_an_answer_has_the_shape_that_was_asked_for(chat, stream):
    form = {"type": "json_schema", "json_schema": {"name": "place", "schema": PLACE}}
    (choice,) = (await chat("counter", stream=stream, response_format=form)).choices
    jsonschema.validate(json.loads(choice.message.content), PLACE)


class Place(pydantic.BaseModel):
    """As users of the SDK write schemas."""

    city: str
    country: str | None
    kind: Literal["town", "village"]


async def test_classes_that_the_sdk_makes_schemas_of(chat):
    parse = chat.sdk.chat.completions.parse
    whole = await parse(model="counter", messages=HI, response_format=Place)
    assert isinstance(whole.choices[0].message.parsed, Place)
    tool = openai.pydantic_function_tool(Place)
    called = await parse(model="counter", messages=HI, tools=[tool], tool_choice="required")
    (call, *_) = called.choices[0].message.tool_calls
    assert isinstance(call.function.parsed_arguments, Place)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"guided_regex": "[0-9]{3}x"}, "000x"),
        ({"guided_grammar": 'start: "a" b\nb: "b" "}"'}, "ab}"),
    ],
)
async def test_patterns_and_grammars(chat, fields, text):
    (choice,) = (await chat("counter", extra_body=fields)).choices
    assert choice.message.content == text
    whole = await chat.sdk.completions.create(model="counter", prompt="x", extra_body=fields)
    assert whole.choices[0].text == text


@both
@pytest.mark.parametrize(
    "fields",
    [
        {"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "no"}}}},
        {"guided_regex": "(("},
        {"guided_grammar": "start: nowhere"},
    ],
)
async def test_what_cannot_be_followed_is_refused(chat, stream, fields):
    with pytest.raises(openai.BadRequestError) as caught:
        await chat.sdk.chat.completions.create(
            model="counter", messages=HI, stream=stream, extra_body=fields
        )
    assert caught.value.code == "invalid_schema"


# --- a worker that dies inside the arguments ---


@both
async def test_a_call_goes_on_where_it_stood(chat, home, stream):
    model = f"faller{int(stream)}"
    (choice,) = (await chat(model, stream=stream, tools=[WEATHER])).choices
    assert (home / f"{model}.fake.tally").exists()
    (call,) = choice.message.tool_calls
    assert call.function.arguments == ARGUMENTS
    assert choice.finish_reason == "tool_calls"


async def test_so_does_its_mask(chat, home):
    fields = {"tools": [WEATHER], "tool_choice": "required", "parallel_tool_calls": False}
    (expected,) = (await chat("counter", stream=True, **fields)).choices
    (choice,) = (await chat("masked-faller", stream=True, **fields)).choices
    assert (home / "masked-faller.fake.tally").exists()
    (call,), (other,) = choice.message.tool_calls, expected.message.tool_calls
    assert call.function.arguments == other.function.arguments
    jsonschema.validate(json.loads(call.function.arguments), PLACE)
