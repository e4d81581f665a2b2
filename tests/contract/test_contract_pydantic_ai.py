"""pydantic-ai, which checks every answer as a whole."""

from __future__ import annotations

import pytest
from contract_server import LONG, PLACE, REAL, TRIP, Place, is_count
from pydantic_ai import (
    Agent,
    DeferredToolRequests,
    DeferredToolResults,
    ExternalToolset,
    ModelHTTPError,
    NativeOutput,
    ToolDefinition,
    ToolOutput,
)
from pydantic_ai.exceptions import ModelContextWindowExceededError, ModelNotFoundError
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

WEATHER = ExternalToolset([ToolDefinition(name="weather", parameters_json_schema=PLACE)])


@pytest.fixture
def model(base_url):
    provider = OpenAIProvider(base_url=base_url, api_key="any")
    return lambda name="counter": OpenAIChatModel(name, provider=provider)


async def test_chat_streamed_and_not(model):
    agent = Agent(model(), model_settings={"temperature": 0})
    answer = await agent.run("Hi")
    assert is_count(answer.output, 8)
    async with agent.run_stream("Hi") as stream:
        assert await stream.get_output() == answer.output
        assert stream.usage.output_tokens == answer.usage.output_tokens > 0
    assert answer.response.finish_reason == "stop"


async def test_thoughts(model):
    answer = await Agent(model("thinker")).run("Hi")
    assert answer.response.thinking == "Who is it?"
    assert answer.output == "Hello!"


async def test_a_call_and_its_result(model):
    agent = Agent(output_type=[str, DeferredToolRequests], toolsets=[WEATHER])
    first = await agent.run("Hi", model=model("caller"))
    (call,) = first.output.calls
    Place.model_validate(call.args_as_dict())
    second = await agent.run(
        model=model("talker"),
        message_history=first.all_messages(),
        deferred_tool_results=DeferredToolResults(calls={call.tool_call_id: "sunny"}),
    )
    assert second.output == "Hello there."


async def test_a_streamed_call(model):
    agent = Agent(model("caller"), output_type=[str, DeferredToolRequests], toolsets=[WEATHER])
    async with agent.run_stream_events("Hi") as events:
        kinds = [event.event_kind async for event in events]
    assert kinds.count("part_delta") > 3
    assert kinds[-1] == "agent_run_result"


@pytest.mark.parametrize("output", [ToolOutput, NativeOutput])
@pytest.mark.parametrize("name", ["counter", REAL])
async def test_a_model_class_as_the_answer(model, output, name):
    """By a call that is required, or by a schema."""
    settings = {"temperature": 0, "max_tokens": 400, "parallel_tool_calls": False}
    agent = Agent(model(name), output_type=output(Place), retries=0, model_settings=settings)
    assert isinstance((await agent.run(TRIP)).output, Place)
    async with agent.run_stream(TRIP) as stream:
        assert isinstance(await stream.get_output(), Place)


@pytest.mark.parametrize(
    ("name", "text", "settings", "error", "message"),
    [
        ("nope", "Hi", {}, ModelNotFoundError, "nope"),
        ("short", LONG, {}, ModelContextWindowExceededError, "context"),
        ("counter", "Hi", {"temperature": 9}, ModelHTTPError, "temperature"),
    ],
)
async def test_errors_are_typed_have_a_message_and_are_not_retried(
    model, server, name, text, settings, error, message
):
    with server.asked() as chats, pytest.raises(error, match=message):
        await Agent(model(name), model_settings=settings).run(text)
    assert len(chats) == 1


async def test_a_stream_that_is_left_frees_its_slot(model, server):
    since = server.mark()
    async with Agent(model("endless")).run_stream("Hi") as stream:
        await anext(stream.stream_text(delta=True))
        await stream.cancel()
    record = server.wait_for(since, lambda record: record["event"] == "request")
    assert record["outcome"] == "cancelled"
