"""Answers as streams of server-sent events.

What clients can bear is narrow. Comments are the only heartbeat that no client chokes on, and a
clean end counts as success, with or without ``[DONE]``: so a failure must be told in a frame.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import msgspec
from attrs import define, field

from lmx_kernel.errors import LmxError
from lmx_kernel.interfaces import Answer
from lmx_kernel.types import Admitted, Event, Finished
from lmx_openai_api.errors import error_body
from lmx_openai_api.rendering import Chunker, Envelope, JsonObject, usage_object

HEARTBEAT = b": keep-alive\n\n"
DONE = b"data: [DONE]\n\n"


async def read_admission(answer: Answer, prompts: int, limit_s: float) -> list[Event]:
    """Return the events up to the admission of all ``prompts``, or those of ``limit_s``.

    Until then a refusal can still have its own HTTP status; but a model that loads must not keep
    the client waiting for the headers.

    :raises LmxError: the request is refused.
    """
    events: list[Event] = []
    try:
        async with asyncio.timeout(limit_s):
            while prompts:
                events.append(await anext(answer))
                prompts -= isinstance(events[-1], Admitted)
    except TimeoutError:
        pass
    return events


@define(kw_only=True)
class EventStream:
    """Writes one answer; closing it is left to whoever asked for it.

    :param early: events that were read already.
    :param choices: how many the answer has.
    :param heartbeat_s: the longest silence.
    :param include_usage: whether to tell the cost at the end.
    """

    answer: Answer
    early: Sequence[Event]
    envelope: Envelope
    choices: int
    heartbeat_s: float
    include_usage: bool
    _chunker: Chunker = field(init=False)
    _head: bytes = field(init=False)
    _heartbeat_at: float = field(init=False, default=0.0)

    def __attrs_post_init__(self) -> None:
        self._chunker = Chunker(self.envelope.rendering)
        self._head = b"data: " + self.envelope.chunk_head()

    async def frames(self) -> AsyncIterator[bytes]:
        """Yield what is to be written; every item is one write.

        Frames that end a choice wait for what follows, so that an answer's last frames go out
        together: some clients hardly read on after them.
        """
        held = b""
        yield self._opening()
        self._mark_written()
        try:
            async for event in self._events():
                frame = HEARTBEAT if event is None else self._frame(event)
                if isinstance(event, Finished):
                    held += frame
                elif frame:
                    yield held + frame
                    held = b""
                    self._mark_written()
        except LmxError as error:
            yield held + b"data: " + msgspec.json.encode(error_body(error)) + b"\n\n"
        else:
            yield held + self._closing()

    async def _events(self) -> AsyncIterator[Event | None]:
        for event in self.early:
            yield event
        while True:
            try:
                yield await self._next()
            except StopAsyncIteration:
                return

    async def _next(self) -> Event | None:
        """Return None when it is time for a heartbeat, even if silent events keep coming."""
        left_s = self._heartbeat_at - asyncio.get_running_loop().time()
        return await self.answer.next(timeout_s=left_s) if left_s > 0 else None

    def _mark_written(self) -> None:
        self._heartbeat_at = asyncio.get_running_loop().time() + self.heartbeat_s

    def _opening(self) -> bytes:
        openings = map(self.envelope.rendering.opening, range(self.choices))
        return b"".join(self._chunk(choice) for choice in openings if choice) or HEARTBEAT

    def _frame(self, event: Event) -> bytes:
        choice = self._chunker.choice(event)
        return self._chunk(choice) if choice else b""

    def _chunk(self, choice: JsonObject) -> bytes:
        return b"%b%b]}\n\n" % (self._head, msgspec.json.encode(choice))

    def _closing(self) -> bytes:
        if not self.include_usage:
            return DONE
        usage = msgspec.json.encode(usage_object(self.answer.usage()))
        return b'%b],"usage":%b}\n\n%b' % (self._head, usage, DONE)
