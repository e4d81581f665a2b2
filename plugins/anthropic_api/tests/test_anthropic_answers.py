"""Answers, whole and as streams, as the unmodified SDK reads them."""

from __future__ import annotations

import asyncio
import json

import anthropic
import pydantic
import pytest

from lmx_kernel.errors import (
    ContextOverflowError,
    EngineCrashedError,
    ForbiddenError,
    InternalError,
    InvalidRequestError,
    PayloadTooLargeError,
    QueueFullError,
    UnauthorizedError,
    UnavailableError,
)
from lmx_kernel.testing.stub_kernel import stub_card
from lmx_kernel.types import (
    Finished,
    PromptProgress,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallStarted,
)

MODEL = "acme/Tiny-1B"
HI = [{"role": "user", "content": "Hi"}]
ASKED = {"model": MODEL, "max_tokens": 100, "messages": HI}
READ = {"name": "Read", "input_schema": {"type": "object"}}


def tells(*events, reason="stop", stop="", tokens=3):
    """Return a play of ``events`` that takes so many tokens."""

    def play(answer):
        answer.admit(7)
        answer.start()
        answer.receive(PromptProgress(0, 7, 7, 4))
        for event in events:
            answer.receive(event)
        answer.receive(TextDelta(0, "", tuple(range(tokens))))
        answer.receive(Finished(0, reason, 2, stop))
        answer.end("ok")

    return play


ALL_KINDS = tells(
    ReasoningDelta(0, "H"),
    ReasoningDelta(0, "m."),
    TextDelta(0, "I ", ()),
    TextDelta(0, "look.", ()),
    ToolCallStarted(0, 0, "call_1", "Read"),
    ToolCallDelta(0, 0, '{"path"'),
    ToolCallDelta(0, 0, ': "a"}'),
    ToolCallStarted(0, 1, "call_2", "Now"),
    reason="tool_calls",
)
CONTENT = [
    {"type": "thinking", "thinking": "Hm.", "signature": ""},
    {"type": "text", "text": "I look."},
    {"type": "tool_use", "id": "call_1", "name": "Read", "input": {"path": "a"}},
    {"type": "tool_use", "id": "call_2", "name": "Now", "input": {}},
]


async def asked(api, *, stream, **fields):
    if not stream:
        return await api.sdk.messages.create(**{**ASKED, **fields})
    async with api.sdk.messages.stream(**{**ASKED, **fields}) as events:
        return await events.get_final_message()


both = pytest.mark.parametrize("stream", [False, True])


@both
async def test_every_kind_of_block(api, kernel, stream):
    kernel.play = ALL_KINDS
    message = await asked(api, stream=stream)
    assert [block.to_dict() for block in message.content] == CONTENT
    assert (message.role, message.type, message.model) == ("assistant", "message", MODEL)
    assert message.id == f"msg_{kernel.answers[0].id}"
    assert (message.stop_reason, message.stop_sequence) == ("tool_use", None)
    usage = message.usage
    assert (usage.input_tokens, usage.cache_read_input_tokens) == (3, 4)
    assert usage.cache_creation_input_tokens == 0
    assert (usage.output_tokens, usage.output_tokens_details.thinking_tokens) == (3, 2)


@both
@pytest.mark.parametrize(
    ("how", "max_tokens", "reason", "sequence"),
    [
        ({}, 9, "end_turn", None),
        ({"stop": "END"}, 9, "stop_sequence", "END"),
        ({"reason": "length"}, 3, "max_tokens", None),
        ({"reason": "length"}, 4, "model_context_window_exceeded", None),
        ({"reason": "tool_calls", "stop": "END"}, 9, "tool_use", None),
    ],
)
async def test_why_it_ends(api, kernel, stream, how, max_tokens, reason, sequence):
    kernel.play = tells(TextDelta(0, "x", ()), **how)
    message = await asked(api, stream=stream, max_tokens=max_tokens)
    assert (message.stop_reason, message.stop_sequence) == (reason, sequence)


@both
async def test_an_answer_of_nothing(api, kernel, stream):
    kernel.play = tells()
    message = await asked(api, stream=stream)
    assert message.content == []
    assert message.stop_reason == "end_turn"


async def test_the_input_of_a_call_that_was_cut(api, kernel):
    call = (ToolCallStarted(0, 0, "call_1", "Read"), ToolCallDelta(0, 0, '{"pa'))
    kernel.play = tells(*call, reason="length")
    (block,) = (await asked(api, stream=False)).content
    assert block.input == {"__unparsedToolInput": {"raw": '{"pa', "len": 4}}


# --- frames ---


async def test_the_frames_of_a_stream(api, kernel):
    kernel.play = ALL_KINDS
    start, *middle, delta, stop = await api.frames()
    assert start["type"] == "message_start"
    assert start["message"]["content"] == []
    assert start["message"]["usage"] == {
        "input_tokens": 3,
        "cache_read_input_tokens": 4,
        "cache_creation_input_tokens": 0,
        "output_tokens": 0,
        "service_tier": "standard",
    }
    assert [frame["type"].removeprefix("content_block_") for frame in middle] == [
        *("start", "delta", "delta", "delta", "stop"),
        *("start", "delta", "delta", "stop"),
        *("start", "delta", "delta", "stop"),
        *("start", "delta", "stop"),
    ]
    assert [frame["index"] for frame in middle] == [0] * 5 + [1] * 4 + [2] * 4 + [3] * 3
    assert middle[3]["delta"] == {"type": "signature_delta", "signature": ""}
    assert middle[-2]["delta"] == {"type": "input_json_delta", "partial_json": "{}"}
    starts = [frame["content_block"] for frame in middle if frame["type"].endswith("start")]
    assert starts == [
        {"type": "thinking", "thinking": "", "signature": ""},
        {"type": "text", "text": ""},
        {**CONTENT[2], "input": {}},
        CONTENT[3],
    ]
    assert delta["delta"] == {"stop_reason": "tool_use", "stop_sequence": None}
    assert delta["usage"]["input_tokens"] == 3
    assert stop == {"type": "message_stop"}


async def test_text_after_a_call_is_a_block_of_its_own(api, kernel):
    call = ToolCallStarted(0, 0, "call_1", "Now")
    kernel.play = tells(TextDelta(0, "a", ()), call, TextDelta(0, "b", ()))
    kinds = ["text", "tool_use", "text"]
    for stream in (False, True):
        message = await asked(api, stream=stream)
        assert [block.type for block in message.content] == kinds


async def test_pings_come_before_the_message_starts(api, kernel):
    waiting = []
    kernel.play = waiting.append
    async with api.http.stream("POST", "/v1/messages", json={**ASKED, "stream": True}) as reply:
        assert reply.headers["content-type"] == "text/event-stream"
        lines = reply.aiter_lines()
        assert await anext(lines) == "event: ping"
        assert await anext(lines) == 'data: {"type":"ping"}'
        ALL_KINDS(waiting[0])
        rest = [line async for line in lines if line.startswith("event:")]
    assert next(line for line in rest if line != "event: ping") == "event: message_start"
    assert rest[-1] == "event: message_stop"


async def test_the_sdk_bears_pings(api, kernel):
    waiting = []
    kernel.play = waiting.append
    async with asyncio.TaskGroup() as group:
        task = group.create_task(asked(api, stream=True))
        await kernel.asked.wait()
        await asyncio.wait([task], timeout=0.2)  # some heartbeats
        assert not task.done()
        ALL_KINDS(waiting[0])
    assert len(task.result().content) == 4


async def test_who_leaves_ends_the_answer(api, kernel):
    kernel.play = lambda answer: answer.admit(7)
    task = asyncio.create_task(api.ask(stream=True))
    await kernel.asked.wait()
    task.cancel()
    await asyncio.wait_for(kernel.closed.wait(), 5)


# --- errors ---


def fails(error, *events):
    def play(answer):
        answer.admit(7)
        answer.start()
        answer.receive(PromptProgress(0, 7, 7, 0))
        for event in events:
            answer.receive(event)
        answer.end(error.code, error)

    return play


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (EngineCrashedError("it crashed twice"), "api_error"),
        (UnavailableError("the server stops"), "overloaded_error"),
        (InvalidRequestError("no"), "invalid_request_error"),
    ],
)
async def test_a_stream_that_fails_says_so(api, kernel, error, kind):
    kernel.play = fails(error, TextDelta(0, "Hel", (1,)))
    frames = await api.frames()
    assert frames[-1] == {"type": "error", "error": {"type": kind, "message": error.message}}
    assert "message_stop" not in [frame["type"] for frame in frames]
    with pytest.raises(anthropic.APIStatusError, match=error.message):
        await asked(api, stream=True)


@pytest.mark.parametrize(
    ("error", "status", "kind", "retry"),
    [
        (InvalidRequestError("no", param="x"), 400, "invalid_request_error", None),
        (UnauthorizedError("no"), 401, "authentication_error", None),
        (ForbiddenError("no"), 403, "permission_error", None),
        (PayloadTooLargeError("no"), 413, "request_too_large", None),
        (QueueFullError("no", retry_after_s=5), 429, "rate_limit_error", "5"),
        (InternalError("no"), 500, "api_error", None),
        (EngineCrashedError("no"), 502, "api_error", None),
        (UnavailableError("no"), 503, "overloaded_error", "1"),
    ],
)
@both
async def test_errors_have_the_types_of_this_dialect(
    api, kernel, error, status, kind, retry, stream
):
    kernel.refusal = error
    answer = await api.ask(stream=stream)
    assert answer.status_code == status
    assert answer.json() == {"type": "error", "error": {"type": kind, "message": "no"}}
    assert answer.headers["x-should-retry"] == ("true" if retry else "false")
    assert answer.headers.get("retry-after") == retry
    with pytest.raises(anthropic.APIStatusError) as caught:
        await asked(api, stream=stream)
    assert caught.value.request_id
    assert caught.value.request_id == caught.value.response.headers["x-request-id"]


@pytest.mark.parametrize(
    ("figures", "message"),
    [
        ({"tokens": 9000, "limit": 8192}, "prompt is too long: 9000 tokens > 8192 maximum"),
        ({}, "prompt is too long: far"),
    ],
)
async def test_agents_know_an_overflow_by_its_words(api, kernel, figures, message):
    kernel.refusal = ContextOverflowError("far", figures=figures)
    assert await api.refusal() == message


async def test_unknown_models_and_paths(api):
    with pytest.raises(anthropic.NotFoundError) as caught:
        await asked(api, stream=True, model="nope")
    assert caught.value.body["error"]["type"] == "not_found_error"
    for method, path, status in (("POST", "batches", 404), ("GET", "", 405)):
        answer = await api.http.request(method, f"/v1/messages/{path}")
        assert answer.status_code == status
        assert answer.json()["type"] == "error"


# --- models ---


async def test_models_have_the_shape_of_the_header(api):
    (model,) = (await api.sdk.models.list()).data
    assert (model.id, model.display_name, model.type) == (MODEL, MODEL, "model")
    assert (await api.sdk.models.retrieve("ACME/tiny-1b")).id == MODEL
    plain = (await api.http.get("/v1/models")).json()
    assert plain["object"] == "list"
    for path, status in (("nope", 404), ("broken", 422)):
        answer = await api.http.get(f"/v1/models/{path}", headers={"anthropic-version": "x"})
        assert (answer.status_code, answer.json()["type"]) == (status, "error")


async def test_models_come_in_pages(api, kernel):
    kernel.cards = [stub_card(f"m{n}") for n in range(5)]
    assert [model.id async for model in api.sdk.models.list(limit=2)] == [f"m{n}" for n in range(5)]
    page = await api.sdk.models.list(limit=2, before_id="m4")
    assert ([model.id for model in page.data], page.has_more) == (["m2", "m3"], True)
    kernel.cards = []
    assert (await api.sdk.models.list()).data == []
    for query in ("limit=0", "limit=x", "limit=1001", "after_id=m9"):
        answer = await api.http.get(f"/v1/models?{query}", headers={"anthropic-version": "x"})
        assert answer.status_code == 400


# --- the SDK's tool runner ---


@both
async def test_the_tool_runner_of_the_sdk(api, kernel, stream):
    plays = [ALL_KINDS, tells(TextDelta(0, "Done.", ()))]

    def play(answer):
        plays.pop(0)(answer)

    kernel.play = play

    async def read(path: str) -> str:
        """Reads."""
        return f"content of {path}"

    async def now() -> str:
        """Tells the time."""
        return "noon"

    tools = [
        anthropic.beta_async_tool(read, name="Read"),
        anthropic.beta_async_tool(now, name="Now"),
    ]
    runner = api.sdk.beta.messages.tool_runner(**ASKED, tools=tools, stream=stream)
    final = await runner.until_done()
    assert final.content[0].text == "Done."
    first, second = (answer.request.prompt.messages for answer in kernel.answers)
    assert second[: len(first)] == first
    assert [(message.role, message.text) for message in second[len(first) :]] == [
        ("assistant", "I look."),
        ("tool", "content of a"),
        ("tool", "noon"),
    ]


class Place(pydantic.BaseModel):
    city: str


async def test_the_sdk_parses_an_answer_of_a_schema(api, kernel):
    kernel.play = tells(TextDelta(0, json.dumps({"city": "Rome"}), ()))
    parsed = await api.sdk.messages.parse(**ASKED, output_format=Place)
    assert parsed.parsed_output == Place(city="Rome")
    assert kernel.request.constraint.kind == "json_schema"
