"""``/api/v1/chat`` over a kernel that answers as a test scripts it."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from lmx_lmstudio_api.v1.chat_objects import ChatEvent

from lmx_kernel.errors import ContextOverflowError, EngineFailedError, InsufficientMemoryError
from lmx_kernel.events import LoadProgressed, LoadStarted, ModelLoaded
from lmx_kernel.testing.stub_kernel import MODEL
from lmx_kernel.types import (
    Finished,
    LoadOverrides,
    PromptProgress,
    ReasoningDelta,
    TextDelta,
)

STARTED = LoadStarted(model=MODEL)
HALF = LoadProgressed(model=MODEL, share=0.5)
LOADED = ModelLoaded(model=MODEL, pid=1, load_s=1.5, memory_bytes=1)


def play(*events, error=None):
    """Return a play of these events."""

    def run(answer):
        answer.admit(7)
        answer.start()
        for event in events:
            answer.receive(event)
        if error is None:
            answer.receive(Finished(0, "stop", reasoning_tokens=1))
        answer.end("ok" if error is None else error.code, error)

    return run


THOUGHT = play(
    PromptProgress(0, 3, 7, 0),
    PromptProgress(0, 7, 7, 0),
    ReasoningDelta(0, "Who"),
    ReasoningDelta(0, "?"),
    TextDelta(0, "Hel", (1,)),
    TextDelta(0, "", (2,)),
    TextDelta(0, "lo", (3,)),
)


def types(events):
    return [event["type"] for event in events]


async def test_a_whole_answer(api, kernel):
    kernel.play = THOUGHT
    found = (await api.ask()).json()
    stats = found.pop("stats")
    assert found == {
        "model_instance_id": MODEL,
        "output": [
            {"type": "reasoning", "content": "Who?"},
            {"type": "message", "content": "Hello"},
        ],
    }
    assert stats.pop("tokens_per_second") >= 0
    assert stats.pop("time_to_first_token_seconds") >= 0
    assert stats == {
        "input_tokens": 7,
        "total_output_tokens": 3,
        "reasoning_output_tokens": 1,
    }


async def test_the_events_of_a_stream(api, kernel):
    kernel.play = THOUGHT
    events = await api.events()
    assert types(events) == [
        "chat.start",
        "prompt_processing.start",
        "prompt_processing.progress",
        "prompt_processing.progress",
        "prompt_processing.end",
        "reasoning.start",
        "reasoning.delta",
        "reasoning.delta",
        "reasoning.end",
        "message.start",
        "message.delta",
        "message.delta",
        "message.end",
        "chat.end",
    ]
    assert [event["progress"] for event in events[2:4]] == [3 / 7, 1]
    assert [event["content"] for event in events if "content" in event] == ["Who", "?", "Hel", "lo"]
    whole = (await api.ask()).json()
    assert events[-1]["result"]["output"] == whole["output"]


async def test_every_event_is_as_documented(api, kernel):
    kernel.play = THOUGHT
    events = await api.events()
    assert msgspec.convert(events, list[ChatEvent]) == events


async def test_an_error_in_a_stream_is_followed_by_the_end(api, kernel):
    kernel.play = play(TextDelta(0, "Hel", (1,)), error=EngineFailedError("not finite"))
    *_, closed, error, end = await api.events()
    assert closed["type"] == "message.end"
    assert error == {
        "type": "error",
        "error": {"type": "internal_error", "message": "not finite", "code": "engine_failed"},
    }
    assert end["type"] == "chat.end"
    assert end["result"]["output"] == [{"type": "message", "content": "Hel"}]
    assert "response_id" not in end["result"]


async def test_a_refusal_has_a_status(api, kernel):
    kernel.play = lambda answer: answer.end("x", ContextOverflowError("too long"))
    for stream in (False, True):
        answer = await api.ask(stream=stream)
        assert answer.status_code == 400
        assert answer.json()["error"] == {
            "type": "invalid_request",
            "message": "too long",
            "code": "context_length_exceeded",
        }


async def test_a_load_is_told_while_the_answer_waits(api, kernel):
    answers = []

    def wait(answer):
        kernel.publish(LoadStarted(model="other"), STARTED)
        answers.append(answer)

    async def load():
        await kernel.asked.wait()
        for event in (HALF, LOADED):
            await asyncio.sleep(0)
            kernel.publish(event)
        THOUGHT(answers[0])

    kernel.play = wait
    events, _ = await asyncio.gather(api.events(), load())
    assert events[:4] == [
        {"type": "chat.start", "model_instance_id": MODEL},
        {"type": "model_load.start", "model_instance_id": MODEL},
        {"type": "model_load.progress", "model_instance_id": MODEL, "progress": 0.5},
        {"type": "model_load.end", "model_instance_id": MODEL, "load_time_seconds": 1.5},
    ]
    assert events[4]["type"] == "prompt_processing.start"
    assert events[-1]["result"]["stats"]["model_load_time_seconds"] == 1.5
    assert kernel.listeners == []


async def test_a_load_that_fails_is_an_error_and_the_end(api, kernel):
    def fail(answer):
        kernel.publish(STARTED)
        answer.end("insufficient_memory", InsufficientMemoryError("it does not fit"))

    kernel.play = fail
    events = await api.events()
    assert types(events) == ["chat.start", "model_load.start", "error", "chat.end"]
    assert (await api.ask()).status_code == 422


async def test_what_the_kernel_is_asked(api, kernel):
    await api.ask(
        input=[{"type": "message", "content": "Hi"}, {"type": "text", "content": " there"}],
        system_prompt="Be brief.",
        temperature=0,
        top_k=3,
        repeat_penalty=1.1,
        max_output_tokens=9,
        reasoning="high",
        integrations=[],
    )
    request = kernel.request
    assert [(one.role, one.text) for one in request.prompt.messages] == [
        ("system", "Be brief."),
        ("user", "Hi there"),
    ]
    assert request.prompt.options == {"enable_thinking": True, "reasoning_effort": "high"}
    assert (request.max_tokens, request.sampling.top_k) == (9, 3)
    assert (request.sampling.temperature, request.sampling.repetition_penalty) == (0, 1.1)


@pytest.mark.parametrize(
    ("reasoning", "options", "limit"),
    [
        (None, {}, None),
        ("on", {"enable_thinking": True}, None),
        ("off", {"enable_thinking": False}, 0),
    ],
)
async def test_reasoning(api, kernel, reasoning, options, limit):
    await api.ask(reasoning=reasoning)
    assert (kernel.request.prompt.options, kernel.request.reasoning_tokens) == (options, limit)


async def test_wishes_for_the_load(api, kernel):
    await api.ask(context_length=32, ttl=9)
    await api.ask(context_length=32)
    kernel.states = {MODEL: "ready"}
    await api.ask(context_length=64)
    stays = kernel.models_settings.ttl_s
    assert kernel.loads == [
        (MODEL, LoadOverrides(context_length=32, ttl_s=9)),
        (MODEL, LoadOverrides(context_length=32, ttl_s=stays)),
    ]


@pytest.mark.parametrize(
    ("fields", "kind", "param"),
    [
        ({"integrations": ["mcp/x"]}, "not_implemented", "integrations"),
        ({"input": [{"type": "image", "data_url": "x"}]}, "not_implemented", "input[0].type"),
        ({"input": [{"type": "text"}]}, "invalid_request", "input[0].content"),
        ({"input": []}, "invalid_request", "input"),
        ({"reasoning": "much"}, "invalid_request", "reasoning"),
        ({"max_output_tokens": 0}, "invalid_request", "max_output_tokens"),
    ],
)
async def test_what_is_refused_names_the_field(api, kernel, fields, kind, param):
    answer = await api.ask(**fields)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["type"], error["param"]) == (kind, param)
    assert param in error["message"]
    assert not kernel.answers


async def test_an_unknown_model(api):
    answer = await api.ask(model="nobody")
    assert answer.status_code == 404
    error = answer.json()["error"]
    assert (error["type"], error["code"]) == ("model_not_found", "model_not_found")
    assert MODEL in error["message"]
