"""Answers as streams, for dialects whose frames, heartbeats and ends differ."""

from __future__ import annotations

import asyncio
import json

import httpx2
import pytest
from attrs import define, field

from lmx_kernel.errors import EngineCrashedError, ModelUnusableError
from lmx_kernel.http.app import build_app
from lmx_kernel.http.error_rendering import ErrorRenderer
from lmx_kernel.http.server import HttpServer
from lmx_kernel.http.settings import ServerSettings
from lmx_kernel.http.shell import Shell
from lmx_kernel.http.sse import FrameWriter, encode_event, stream_answer
from lmx_kernel.http.surface_table import SurfaceTable
from lmx_kernel.interfaces import Answer
from lmx_kernel.types import Admitted, Finished, TextDelta, Usage


class QueuedAnswer(Answer):
    """An answer to which a test adds events, and then an error or None for its end."""

    id = model = "m"

    def __init__(self):
        self.queue = asyncio.Queue()
        self.closed = asyncio.Event()

    def add(self, *items):
        for item in items:
            self.queue.put_nowait(item)

    async def next(self, timeout_s=None):
        try:
            async with asyncio.timeout(timeout_s):
                item = await self.queue.get()
        except TimeoutError:
            return None
        if isinstance(item, Exception):
            raise item
        if item is None:
            raise StopAsyncIteration
        return item

    def usage(self):
        return Usage(
            prompt_tokens=3,
            cached_tokens=0,
            completion_tokens=2,
            queue_s=0.0,
            first_token_s=None,
            total_s=1.0,
        )

    def close(self):
        self.closed.set()


@define
class NamedWriter(FrameWriter):
    """Events with names, the first at the admission; numbered heartbeats after it."""

    number: int = 0

    def event(self, event):
        match event:
            case Admitted():
                return self._encode("created", prompt_tokens=event.prompt_tokens)
            case TextDelta():
                return self._encode("delta", text=event.text)
            case Finished():
                return self._encode("finished", reason=event.reason)
        return b""

    def heartbeat(self):
        return self._encode("keepalive") if self.number else super().heartbeat()

    def failure(self, error):
        return self._encode("failed", code=error.code)

    def closing(self, usage):
        return self._encode("completed", completion_tokens=usage.completion_tokens)

    def _encode(self, event, **fields):
        self.number += 1
        data = json.dumps({"type": event, "number": self.number, **fields}).encode()
        return encode_event(data, event=event)


@define
class LineWriter(FrameWriter):
    """Lines of JSON, which have no place for heartbeats.

    :ivar is_silent: set when a heartbeat is due.
    """

    is_silent: asyncio.Event

    def event(self, event):
        return self._line(text=event.text) if isinstance(event, TextDelta) else b""

    def heartbeat(self):
        self.is_silent.set()
        return b""

    def failure(self, error):
        return self._line(error=error.message)

    def closing(self, usage):
        return self._line(done=True, tokens=usage.completion_tokens)

    def _line(self, **fields):
        return json.dumps(fields).encode() + b"\n"


@define
class Dialect:
    """Streams one answer in the way that the path names."""

    name = "toy"
    prefix = "/toy"
    scope = ""
    answer: QueuedAnswer = field(factory=QueuedAnswer)
    is_silent: asyncio.Event = field(factory=asyncio.Event)
    heartbeat_s: float = 10.0

    def routes(self):
        return [("/toy/{kind}", self)]

    def operations(self):
        return []

    def render_error(self, error):
        return {"code": error.code}

    async def on_get(self, req, resp, kind):
        beat_s = self.heartbeat_s
        if kind == "named":
            await stream_answer(resp, self.answer, NamedWriter(), heartbeat_s=beat_s)
        else:
            content_type = "application/x-ndjson"
            await stream_answer(
                resp,
                self.answer,
                LineWriter(self.is_silent),
                heartbeat_s=beat_s,
                content_type=content_type,
            )


@pytest.fixture
def dialect():
    return Dialect()


@pytest.fixture
async def http(dialect, health):
    settings, renderer = ServerSettings(port=0), ErrorRenderer(SurfaceTable([dialect]))
    app = build_app([dialect], health)
    server = HttpServer(settings, Shell(app, settings, renderer, lambda request: request))
    await server.start()
    url = f"http://127.0.0.1:{server.port}/toy"
    async with httpx2.AsyncClient(base_url=url, timeout=10) as client:
        yield client
    await server.stop()


WHOLE = (Admitted(3), TextDelta(0, "Hi", (1, 2)), Finished(0, "stop"), None)


def named_events(text):
    """Return the data of all events, each under its own name; comments are passed over."""
    found = []
    for frame in text.split("\n\n")[:-1]:
        if not frame.startswith(":"):
            event, data = frame.split("\n")
            found.append(json.loads(data.removeprefix("data: ")))
            assert event == f"event: {found[-1]['type']}"
    return found


async def test_named_events_from_the_admission_to_the_usage(http, dialect):
    dialect.answer.add(*WHOLE)
    response = await http.get("named")
    assert response.headers["content-type"] == "text/event-stream"
    assert response.headers["cache-control"] == "no-cache"
    assert named_events(response.text) == [
        {"type": "created", "number": 1, "prompt_tokens": 3},
        {"type": "delta", "number": 2, "text": "Hi"},
        {"type": "finished", "number": 3, "reason": "stop"},
        {"type": "completed", "number": 4, "completion_tokens": 2},
    ]


async def test_a_refusal_keeps_its_status(http, dialect):
    dialect.answer.add(ModelUnusableError("a damaged file"))
    response = await http.get("named")
    assert response.status_code == ModelUnusableError.status
    assert response.json() == {"code": "model_unusable"}


async def test_a_failure_after_the_head_ends_the_stream_in_the_dialect_s_own_way(http, dialect):
    dialect.answer.add(*WHOLE[:2], EngineCrashedError("it died"))
    response = await http.get("named")
    *_, text, last = named_events(response.text)
    assert (response.status_code, text["text"]) == (200, "Hi")
    assert (last["type"], last["code"]) == ("failed", "engine_crashed")


async def test_heartbeats_are_the_dialect_s_own_and_may_change(http, dialect):
    dialect.heartbeat_s = 0.01
    async with http.stream("GET", "named") as response:
        lines = response.aiter_lines()
        assert await anext(lines) == ": keep-alive"
        dialect.answer.add(WHOLE[0])
        events = []
        while events[-2:] != ["event: keepalive"] * 2:
            events += [line for line in [await anext(lines)] if line.startswith("event")]
    assert events[0] == "event: created"


async def test_a_dialect_without_heartbeats_stays_silent(http, dialect):
    dialect.heartbeat_s = 0.01
    request = asyncio.create_task(http.get("lines"))
    await dialect.is_silent.wait()
    dialect.answer.add(*WHOLE)
    response = await request
    assert response.headers["content-type"] == "application/x-ndjson"
    assert [json.loads(line) for line in response.text.splitlines()] == [
        {"text": "Hi"},
        {"done": True, "tokens": 2},
    ]


async def test_a_client_that_leaves_closes_the_answer(http, dialect):
    dialect.answer.add(WHOLE[0])
    async with http.stream("GET", "named") as response:
        await anext(response.aiter_lines())
    async with asyncio.timeout(10):
        await dialect.answer.closed.wait()


def test_an_event_has_the_lines_that_are_given():
    assert encode_event(b"{}") == b"data: {}\n\n"
    assert encode_event(b"{}", event="ping") == b"event: ping\ndata: {}\n\n"
    assert encode_event(b"{}", event="a", id=7) == b"id: 7\nevent: a\ndata: {}\n\n"
