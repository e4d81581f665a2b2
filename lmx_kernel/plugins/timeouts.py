"""Calls code of plugins with a limit of time, in threads that nobody has to wait for: one that
hangs keeps neither the daemon from starting nor from ending.
"""

from __future__ import annotations

import asyncio
import contextvars
import queue
import threading
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")
LEAST_S = 0.1
"""How long a call is waited for even where all patience is used up."""


class Caller:
    """Calls functions at the same time, each in a thread of its own.

    :param timeout_s: when no call has finished for this long, those that still run are abandoned.
    :param patience_s: how long calls that are hurried are waited for when all others are done, in
        seconds for all uses together; None waits as long as for the others.
    """

    def __init__(self, timeout_s: float, patience_s: float | None = None) -> None:
        self._timeout_s = timeout_s
        self._patience_s = patience_s
        self._lock = threading.Lock()
        self._abandoned: set[tuple[int, str]] = set()
        self._late: list[str] = []
        self._on_late: Callable[[str], None] | None = None

    @property
    def hanging(self) -> frozenset[str]:
        """The names of the calls that were abandoned and still run."""
        return frozenset(name for _, name in self._abandoned)

    def be_patient(self) -> None:
        """Wait for hurried calls as long as for others from now on."""
        self._patience_s = None

    def call_when_late(self, on_late: Callable[[str], None]) -> None:
        """Call ``on_late``, in any thread, with the name of each abandoned call that ends, those
        that have ended before included.
        """
        with self._lock:
            self._on_late, late, self._late = on_late, self._late, []
        for name in late:
            on_late(name)

    def call_all(
        self,
        calls: Mapping[str, Callable[[], object]],
        hurried: Collection[str] = (),
        timeout_s: float | None = None,
    ) -> dict[str, object]:
        """Call all functions.

        :param hurried: the names of those that are waited for only as long as patience lasts.
        :param timeout_s: instead of the usual one.
        :returns: the value or the exception of each call by name; a TimeoutError for abandoned
            calls.
        """
        outcomes: queue.SimpleQueue[tuple[str, object]] = queue.SimpleQueue()
        for name, call in calls.items():
            arguments = (name, call, outcomes)
            threading.Thread(target=self._run, args=arguments, name=name, daemon=True).start()
        done: dict[str, object] = {}
        limit_s = timeout_s or self._timeout_s
        while waiting := calls.keys() - done.keys():
            is_hurried = self._patience_s is not None and waiting <= set(hurried)
            if is_hurried:
                limit_s = max(LEAST_S, min(limit_s, self._patience_s or 0))
            begun = time.monotonic()
            with suppress(queue.Empty):
                name, outcome = outcomes.get(timeout=limit_s)
                done[name] = outcome
            if is_hurried and self._patience_s is not None:
                self._patience_s -= time.monotonic() - begun
            if not waiting & done.keys():
                return self._abandon(calls, done, outcomes, limit_s)
        return done

    def _abandon(
        self,
        calls: Collection[str],
        done: dict[str, object],
        outcomes: queue.SimpleQueue[tuple[str, object]],
        limit_s: float,
    ) -> dict[str, object]:
        with self._lock:
            while not outcomes.empty():
                name, outcome = outcomes.get()
                done[name] = outcome
            left = [name for name in calls if name not in done]
            self._abandoned |= {(id(outcomes), name) for name in left}
        hung = TimeoutError(f"no answer within {limit_s:.2g} seconds")
        return done | dict.fromkeys(left, hung)

    def _run(
        self,
        name: str,
        call: Callable[[], object],
        outcomes: queue.SimpleQueue[tuple[str, object]],
    ) -> None:
        outcome: object
        try:
            outcome = call()
        # Plugins may fail in any way, including sys.exit(); the caller gets the exception.
        except (Exception, SystemExit) as error:  # noqa: BLE001
            outcome = error
        with self._lock:
            key = (id(outcomes), name)
            if key not in self._abandoned:
                outcomes.put((name, outcome))
                return
            self._abandoned.discard(key)
            if self._on_late is None:
                self._late.append(name)
                return
        self._on_late(name)


def call_all(calls: Mapping[str, Callable[[], object]], timeout_s: float) -> dict[str, object]:
    """Call all functions at the same time; see :meth:`Caller.call_all`."""
    return Caller(timeout_s).call_all(calls)


async def in_thread(function: Callable[..., T], *arguments: Any) -> T:
    """Call a function in a thread of its own, and return what it does.

    Unlike :func:`asyncio.to_thread`, the end of the process does not wait for it, and it takes no
    place from others while it hangs.
    """
    loop, context = asyncio.get_running_loop(), contextvars.copy_context()
    future: asyncio.Future[T] = loop.create_future()

    def settle(value: T | None, error: BaseException | None) -> None:
        if future.done():  # whoever waited has left
            return
        if error is None:
            future.set_result(value)  # type: ignore[arg-type]
        else:
            future.set_exception(error)

    def run() -> None:
        value, error = None, None
        try:
            value = context.run(function, *arguments)
        # Plugins may fail in any way, including sys.exit(); whoever waits gets the exception.
        except (Exception, SystemExit) as caught:  # noqa: BLE001
            error = RuntimeError(repr(caught)) if isinstance(caught, StopIteration) else caught
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(settle, value, error)

    threading.Thread(target=run, name=getattr(function, "__name__", "plugin"), daemon=True).start()
    return await future
