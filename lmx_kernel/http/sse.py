"""Streams: answers as server-sent events (WHATWG HTML, 9.2), or as any other frames.

A dialect's :class:`FrameWriter` knows what its frames look like; :func:`stream_answer` does what is
the same for all of them: headers, heartbeats, errors before and after the head, and the end.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Sequence

from attrs import define, field
from falcon.asgi import Response

from lmx_kernel.errors import LmxError
from lmx_kernel.interfaces import Answer
from lmx_kernel.types import Admitted, Event, Finished, Usage

EVENT_STREAM = "text/event-stream"
COMMENT = b": keep-alive\n\n"  # clients ignore it; some do not count it as a sign of life


def encode_event(data: bytes, *, event: str = "", id: int | None = None) -> bytes:  # noqa: A002
    """Return one server-sent event.

    :param data: without line breaks, as JSON is written.
    :param event: its name; "" for none.
    :param id: its number, for clients that come back with ``last-event-id``; None for none.
    """
    frame = b"event: %b\ndata: %b\n\n" % (event.encode(), data) if event else b"data: %b\n\n" % data
    return frame if id is None else b"id: %d\n%b" % (id, frame)


def send_stream(
    resp: Response, frames: AsyncIterator[bytes], content_type: str = EVENT_STREAM
) -> None:
    """Answer with ``frames``, each of them one write, past caches and buffering proxies."""
    resp.content_type = content_type
    resp.set_headers({"cache-control": "no-cache", "x-accel-buffering": "no"})
    resp.stream = frames


def close_with_request(close: Callable[[], object]) -> None:
    """Call ``close`` when the task of the running request ends, in whatever way.

    The stream itself could not do it: falcon never starts it when the headers cannot be sent.
    """
    task = asyncio.current_task()
    assert task is not None
    task.add_done_callback(lambda _: close())


class FrameWriter(ABC):
    """How a dialect writes one answer. Each method returns any number of frames, b"" for none."""

    def opening(self) -> bytes:
        """Return what is written first, before any event of the answer is."""
        return b""

    @abstractmethod
    def event(self, event: Event) -> bytes:
        """Return what is written for one event of the answer."""

    def heartbeat(self) -> bytes:
        """Return what is written after a silence; clients differ in what they count as life."""
        return COMMENT

    @abstractmethod
    def failure(self, error: LmxError) -> bytes:
        """Return the end of an answer that fails after its head: its status cannot say so."""

    @abstractmethod
    def closing(self, usage: Usage) -> bytes:
        """Return the end of a complete answer."""


async def stream_answer(
    resp: Response,
    answer: Answer,
    writer: FrameWriter,
    *,
    heartbeat_s: float,
    admissions: int = 1,
    content_type: str = EVENT_STREAM,
) -> None:
    """Answer with ``answer`` as a stream, and close it with the request.

    Waits for the admission, so that a refusal has its own HTTP status, but for one heartbeat at
    most: a model that loads must not keep the client waiting for the headers.

    :param heartbeat_s: the longest silence.
    :param admissions: how many ``Admitted`` the answer has: one for each of its prompts.
    :raises LmxError: the request is refused.
    """
    close_with_request(answer.close)
    early = await _read_admissions(answer, admissions, heartbeat_s)
    stream = AnswerStream(answer, writer, heartbeat_s, early)
    send_stream(resp, stream.frames(), content_type)


@define
class AnswerStream:
    """The frames of one answer; closing it is left to the caller.

    :param early: events that were read already.
    """

    answer: Answer
    writer: FrameWriter
    heartbeat_s: float
    early: Sequence[Event] = ()
    _heartbeat_at: float = field(init=False, default=0.0)

    async def frames(self) -> AsyncIterator[bytes]:
        """Yield what is to be written; every item is one write.

        Frames that end a candidate wait for what follows, so that an answer's last frames go out
        together: some clients hardly read on after them.
        """
        if opening := self.writer.opening():
            yield opening
        self._mark_written()
        held = b""
        try:
            async for event in self._events():
                frame = self.writer.heartbeat() if event is None else self.writer.event(event)
                if isinstance(event, Finished):
                    held += frame
                    continue
                if frame:
                    yield held + frame
                    held = b""
                if frame or event is None:
                    self._mark_written()
        except LmxError as error:
            yield held + self.writer.failure(error)
        else:
            yield held + self.writer.closing(self.answer.usage())

    async def _events(self) -> AsyncIterator[Event | None]:
        """Yield the answer's events, and None when it is time for a heartbeat."""
        for event in self.early:
            yield event
        while True:
            try:
                yield await self._next()
            except StopAsyncIteration:
                return

    async def _next(self) -> Event | None:
        # Events for which nothing is written must not put off the heartbeat.
        left_s = self._heartbeat_at - asyncio.get_running_loop().time()
        return await self.answer.next(timeout_s=left_s) if left_s > 0 else None

    def _mark_written(self) -> None:
        self._heartbeat_at = asyncio.get_running_loop().time() + self.heartbeat_s


async def _read_admissions(answer: Answer, count: int, limit_s: float) -> list[Event]:
    """Return the events up to the last of ``count`` admissions, or those of ``limit_s``."""
    events: list[Event] = []
    try:
        async with asyncio.timeout(limit_s):
            while count:
                events.append(await anext(answer))
                count -= isinstance(events[-1], Admitted)
    except TimeoutError:
        pass
    return events
