"""What the client of a socket asked for and is not answered yet."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any

import structlog
from attrs import define, field

from lmx_kernel.errors import LmxError, UnavailableError
from lmx_kernel.http.access_line import AccessLine
from lmx_kernel.http.context import RequestContext, current
from lmx_kernel.http.exceptions import to_lmx_error
from lmx_kernel.http.response import ResponseProgress
from lmx_kernel.interfaces import WebSocketClosedError

MAX_CALLS = 256  # of one socket; what it asks for beyond these waits
MAX_ENDLESS = 16  # of these, or nothing else could ever have its turn

Failed = Callable[[LmxError], Awaitable[None]]
Work = Coroutine[Any, Any, None]

_log = structlog.get_logger("lmx.http")


@define(eq=False)
class Call:
    """One thing that a client asked for.

    :ivar context: as an HTTP request has it.
    :ivar size_bytes: of the message that it came in.
    """

    line: AccessLine
    context: RequestContext
    size_bytes: int
    is_endless: bool
    response: ResponseProgress = field(factory=ResponseProgress)

    def note_error(self, error: LmxError) -> None:
        """Note for the log how it failed."""
        self.line.cause = error.code
        self.response.status = error.status

    def log(self) -> None:
        """Write the call's line into the log."""
        answers, self.context.answers = self.context.answers, None
        self.response.is_complete = True
        self.line.write(
            self.context.request, self.response, [answer for answer, _ in answers or ()]
        )


class Calls:
    """The calls of one socket.

    :param closed: the socket's.
    :param on_end: called after each call, with the size of its message.
    """

    def __init__(self, closed: asyncio.Event, on_end: Callable[[int], None]) -> None:
        self._closed = closed
        self._on_end = on_end
        self._running: dict[asyncio.Task[None], Call] = {}
        self._ended = asyncio.Event()

    @property
    def is_idle(self) -> bool:
        """Whether nothing runs that will end by itself."""
        return all(call.is_endless for call in self._running.values())

    async def room(self, *, is_endless: bool) -> None:
        """Wait until one more may run.

        :raises UnavailableError: that could take for ever.
        :raises WebSocketClosedError: the socket is closed.
        """
        if is_endless and sum(call.is_endless for call in self._running.values()) >= MAX_ENDLESS:
            raise UnavailableError("This socket has as many open streams as it may.")
        while len(self._running) >= MAX_CALLS and not self._closed.is_set():
            self._ended.clear()
            await self._ended.wait()
        if self._closed.is_set():
            raise WebSocketClosedError

    def start(self, call: Call, work: Work, failed: Failed) -> asyncio.Task[None]:
        """Start a call there is room for."""
        task = asyncio.create_task(_run(call, work, failed))
        self._running[task] = call
        task.add_done_callback(partial(self._end, work))
        return task

    def note_sent(self, size_bytes: int) -> None:
        """Note what the call that runs in the current task has sent."""
        task = asyncio.current_task()
        if task is not None and (call := self._running.get(task)) is not None:
            call.response.body_bytes += size_bytes

    def cancel(self) -> None:
        """End all but the one that asks for it."""
        for task in self._running.keys() - {asyncio.current_task()}:
            task.cancel()

    async def wait(self) -> None:
        """Wait until all have ended."""
        while self._running:
            await asyncio.wait(self._running)

    def _end(self, work: Work, task: asyncio.Task[None]) -> None:
        work.close()  # in case that it was cancelled before it began
        call = self._running.pop(task)
        if task.cancelled():
            call.line.cause = call.line.cause or "cancelled"
        call.log()
        self._ended.set()
        self._on_end(call.size_bytes)


async def _run(call: Call, work: Work, failed: Failed) -> None:
    current.set(call.context)
    structlog.contextvars.bind_contextvars(request_id=call.line.request_id)
    try:
        await work
    except WebSocketClosedError:
        call.line.cause = "client_left"
    except Exception as exc:  # noqa: BLE001  a plugin's: the client is told
        await report(call, exc, failed)
    else:
        call.response.status = 200


async def report(call: Call, exc: Exception, failed: Failed) -> None:
    """Tell the client why its call failed; never raises but for a cancellation."""
    error = to_lmx_error(exc, call.line.request_id).error
    call.note_error(error)
    try:
        await failed(error)
    except WebSocketClosedError:
        pass
    except Exception:  # noqa: BLE001  a plugin's
        _log.exception("failed to send an error", request_id=call.line.request_id)
