"""Streams: their events, in the order and with the fields that clients depend on."""

from __future__ import annotations

import asyncio
import base64
import json
from itertools import groupby

import pytest
from pydantic import BaseModel

from lmx_kernel.errors import (
    ContextOverflowError,
    EngineCrashedError,
    InsufficientMemoryError,
    QueueFullError,
)
from lmx_kernel.testing.stub_kernel import MODEL
from lmx_kernel.types import Finished, TextDelta

PATCH = {"type": "custom", "name": "patch", "description": "Patch a file"}


class Answer(BaseModel):
    value: int


def kinds(events):
    """Return the types of events without their common prefix, equal neighbours once."""
    return [kind.removeprefix("response.") for kind, _ in groupby(e["type"] for e in events)]


def check_items(events):
    """Check what agents depend on: numbers, ids that stay, and a final object of all items."""
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    shown = [event["response"] for event in events if "response" in event]
    assert len({response["id"] for response in shown}) == 1
    added = [event["item"]["id"] for event in events if event["type"].endswith("item.added")]
    done = [event["item"] for event in events if event["type"].endswith("item.done")]
    assert added == [item["id"] for item in done]
    assert done == shown[-1]["output"]
    assert [e["output_index"] for e in events if e["type"].endswith("item.done")] == list(
        range(len(done))
    )
    places = {item["id"]: index for index, item in enumerate(done)}
    for event in events:
        if "item_id" in event:
            assert places[event["item_id"]] == event["output_index"]


async def test_a_text(api):
    events = await api.streamed()
    assert kinds(events) == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    check_items(events)
    assert [event["delta"] for event in events if "delta" in event] == ["Hel", "lo"]
    assert events[0]["response"]["status"] == "in_progress"
    final = events[-1]["response"]
    assert final["usage"]["total_tokens"] == 10
    whole = await api.made()
    volatile = {"id", "created_at", "completed_at", "output"}
    assert {k: v for k, v in final.items() if k not in volatile} == {
        k: v for k, v in whole.items() if k not in volatile
    }


async def test_a_text_that_reads_like_an_event(api):
    texts = ['"sequence_number":0,"delta":""', "}\n\ndata: {}\n\n"]
    api.kernel.play = api.play(*api.texts(*texts), Finished(0, "stop"))
    events = await api.streamed()
    check_items(events)
    assert [event["delta"] for event in events if "delta" in event] == texts
    assert events[-1]["response"]["output"][0]["content"][0]["text"] == "".join(texts)


async def test_reasoning_text_and_calls(api):
    api.kernel.play = api.play(
        *api.thoughts("H", "m"),
        *api.texts("So"),
        *api.call("ls", '{"a"', ": 1}"),
        *api.call("patch", '{"inp', 'ut": "x\\', 'ny"}', index=1),
        reason="tool_calls",
    )
    reasoning = {"summary": "auto"}
    events = await api.streamed(
        tools=[{"type": "function", "name": "ls"}, PATCH], reasoning=reasoning
    )
    check_items(events)
    assert kinds(events)[2:-1] == [
        "output_item.added",
        "content_part.added",
        "reasoning_summary_part.added",
        *["reasoning_text.delta", "reasoning_summary_text.delta"] * 2,
        "reasoning_text.done",
        "content_part.done",
        "reasoning_summary_text.done",
        "reasoning_summary_part.done",
        "output_item.done",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "output_item.added",
        "custom_tool_call_input.delta",
        "custom_tool_call_input.done",
        "output_item.done",
    ]
    calls = events[-1]["response"]["output"][2:]
    assert [call["type"] for call in calls] == ["function_call", "custom_tool_call"]
    assert (calls[0]["call_id"], calls[0]["arguments"]) == ("call_0", '{"a": 1}')
    assert (calls[1]["call_id"], calls[1]["input"]) == ("call_1", "x\ny")


async def test_the_sdk_follows(api):
    api.kernel.play = api.play(
        *api.thoughts("Hm"), *api.texts("So"), *api.call("ls", "{}"), reason="tool_calls"
    )
    tools = [{"type": "function", "name": "ls", "parameters": {}, "strict": False}]
    async with api.sdk.responses.stream(model=MODEL, input="Hi", tools=tools) as stream:
        seen = [event.type async for event in stream]
        final = await stream.get_final_response()
    assert seen[-1] == "response.completed"
    assert [item.type for item in final.output] == ["reasoning", "message", "function_call"]
    assert final.output_text == "So"


async def test_the_sdk_parses(api):
    api.kernel.play = api.play(*api.texts('{"value"', ": 3}"))
    parsed = await api.sdk.responses.parse(model=MODEL, input="Hi", text_format=Answer)
    assert parsed.output_parsed == Answer(value=3)
    assert api.request.constraint.kind == "json_schema"
    async with api.sdk.responses.stream(model=MODEL, input="Hi", text_format=Answer) as stream:
        final = await stream.get_final_response()
    assert final.output_parsed == Answer(value=3)


async def test_the_limit_ends_with_incomplete(api):
    api.kernel.play = api.play(*api.call("ls", '{"a'), reason="length")
    events = await api.streamed()
    check_items(events)
    assert events[-1]["type"] == "response.incomplete"
    assert events[-1]["response"]["output"][0]["status"] == "incomplete"


async def test_keepalives_while_the_model_is_silent(api):
    api.kernel.play = lambda answer: answer.admit(7)
    body = {"model": MODEL, "input": "Hi", "stream": True}
    frames = []
    async with api.http.stream("POST", "/v1/responses", json=body) as answer:
        async for line in answer.aiter_lines():
            if line.startswith("data: "):
                frames.append(json.loads(line.removeprefix("data: ")))
            if len(frames) == 4:
                live = api.kernel.answers[0]
                live.receive(TextDelta(0, "Hello", (1,)))
                live.receive(Finished(0, "stop"))
                live.end("ok")
    assert kinds(frames)[:3] == ["created", "in_progress", "keepalive"]
    assert frames[3]["type"] == "keepalive"
    assert frames[-1]["type"] == "response.completed"
    assert [frame["sequence_number"] for frame in frames] == list(range(len(frames)))


async def test_created_comes_after_one_heartbeat_without_admission(api):
    api.kernel.play = lambda answer: None
    body = {"model": MODEL, "input": "Hi", "stream": True}
    async with api.http.stream("POST", "/v1/responses", json=body) as answer:
        lines = answer.aiter_lines()
        assert await anext(lines) == "event: response.created"
    await api.kernel.closed.wait()
    assert not api.kernel.stored_answers.entries


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (EngineCrashedError("the worker crashed"), "server_error"),
        (ContextOverflowError("too long"), "context_length_exceeded"),
        (InsufficientMemoryError("no memory"), "invalid_prompt"),
        (QueueFullError("full", retry_after_s=7), "rate_limit_exceeded"),
    ],
)
async def test_a_failure_is_response_failed(api, error, code):
    api.kernel.play = api.play(*api.texts("Hel"), error=error)
    events = await api.streamed()
    last = events[-1]
    assert last["type"] == "response.failed"
    assert last["response"]["status"] == "failed"
    assert last["response"]["error"]["code"] == code
    assert error.message in last["response"]["error"]["message"]
    assert ("try again in 7s" in last["response"]["error"]["message"]) == (code[:4] == "rate")
    # Agents take an item that is done for whole.
    assert "response.output_item.done" not in {event["type"] for event in events}
    assert last["response"]["output"][0]["status"] == "incomplete"


async def test_a_client_that_leaves_ends_the_answer(api):
    api.kernel.play = lambda answer: answer.admit(7)
    body = {"model": MODEL, "input": "Hi", "stream": True}
    async with api.http.stream("POST", "/v1/responses", json=body) as answer:
        await anext(answer.aiter_lines())
    await asyncio.wait_for(api.kernel.closed.wait(), 5)


async def test_sealed_reasoning_is_told_with_the_end(api):
    api.kernel.play = api.play(*api.thoughts("Hm"), *api.texts("So"))
    events = await api.streamed(include=["reasoning.encrypted_content"])
    items = [event["item"] for event in events if event.get("item", {}).get("type") == "reasoning"]
    assert items[0]["encrypted_content"] is None
    sealed = items[1]["encrypted_content"]
    assert base64.urlsafe_b64decode(sealed.removeprefix("lmx1.")) == b"Hm"
