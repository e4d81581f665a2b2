"""What the calls of plugins took and how they failed. Nothing else records that."""

from __future__ import annotations

import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import count

import structlog
from attrs import define

from lmx_kernel.interfaces import HookCall, HookTimes, PluginState

RECENT = 200  # calls of each plugin that are kept
TROUBLE_S = 300.0  # so long after its last error a plugin is degraded
BLOCKED_S = 30.0  # an observer that has not returned for so long counts as muted
SLOW_S = 0.1  # for calls on the event loop, which hold up every request
WARN_EVERY_S = 60.0

Watch = Callable[[str, str, str], AbstractContextManager[None]]
"""Takes a hook, the name of an object that a plugin returned from it, and a method of that object;
returns a context that times and records the call inside it.
"""

log = structlog.get_logger(__name__)


def unwatched(_hook: str, _name: str, _method: str) -> AbstractContextManager[None]:
    """Record nothing: a :data:`Watch` for where no plugins are."""
    return nullcontext()


@define
class _Sum:
    calls: int = 0
    failures: int = 0
    total_s: float = 0.0
    worst_s: float = 0.0


@define
class _Trouble:
    """What went wrong last, and when (monotonic)."""

    text: str
    at: float


class Calls:
    """Records calls, from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ids = count(1)
        self._sums: defaultdict[str, defaultdict[str, _Sum]] = defaultdict(
            lambda: defaultdict(_Sum)
        )
        self._recent: defaultdict[str, deque[HookCall]] = defaultdict(lambda: deque(maxlen=RECENT))
        self._running: dict[int, tuple[str, str, float]] = {}
        self._errors: dict[str, _Trouble] = {}
        self._slow: dict[str, _Trouble] = {}
        self._muted: dict[str, str] = {}

    @contextmanager
    def watch(self, plugin: str, hook: str, *, on_loop: bool = False) -> Iterator[None]:
        """Time and record the call inside the context; what it raises is recorded and raised.

        :param on_loop: it holds up the event loop, so a slow one is warned of.
        """
        number, begun = next(self._ids), time.monotonic()
        self._running[number] = (plugin, hook, begun)
        error: BaseException | None = None
        try:
            yield
        except BaseException as caught:
            error = caught
            raise
        finally:
            del self._running[number]
            took_s = time.monotonic() - begun
            self._record(plugin, hook, took_s, error, number)
            if on_loop and took_s > SLOW_S:
                self._warn_of_slow(plugin, hook, took_s)

    def note_error(self, plugin: str, hook: str, error: BaseException) -> None:
        """Record a call that failed and was not timed."""
        self._record(plugin, hook, 0.0, error, next(self._ids))

    def mute(self, plugin: str, reason: str) -> None:
        """Record that something of a plugin is not called any more."""
        self._muted[plugin] = reason

    def forget(self, plugin: str) -> None:
        """Drop what is wrong with a plugin: it is not in use any more, or comes anew."""
        for troubles in (self._errors, self._slow, self._muted):
            troubles.pop(plugin, None)

    def times(self, plugin: str) -> tuple[HookTimes, ...]:
        """Return the times of each hook that was called, by name."""
        with self._lock:
            sums = sorted(self._sums[plugin].items()) if plugin in self._sums else []
        return tuple(
            HookTimes(
                hook=hook,
                calls=one.calls,
                failures=one.failures,
                mean_ms=round(1000 * one.total_s / one.calls, 3),
                worst_ms=round(1000 * one.worst_s, 3),
            )
            for hook, one in sums
        )

    def recent(self, plugin: str) -> list[HookCall]:
        """Return the last calls, the oldest first."""
        with self._lock:
            return list(self._recent[plugin]) if plugin in self._recent else []

    def last_error(self, plugin: str) -> str:
        """Return what the last failed call raised, "" for none."""
        error = self._errors.get(plugin)
        return error.text if error else ""

    def trouble(self, plugin: str) -> tuple[PluginState, str] | None:
        """Return what is wrong with a plugin that is in use, None for nothing."""
        now = time.monotonic()
        if plugin in self._muted:
            return PluginState.MUTED, self._muted[plugin]
        for owner, hook, begun in list(self._running.values()):
            if owner == plugin and now - begun > BLOCKED_S:
                return PluginState.MUTED, f"{hook}: blocked for {now - begun:.0f} s"
        for troubles in (self._slow, self._errors):
            one = troubles.get(plugin)
            if one is not None and now - one.at < TROUBLE_S:
                return PluginState.DEGRADED, one.text
        return None

    # --- inside ---

    def _record(
        self, plugin: str, hook: str, took_s: float, error: BaseException | None, number: int
    ) -> None:
        text = "" if error is None else f"{hook}: {described(error)}"
        call = HookCall(
            id=number, at=time.time(), hook=hook, took_ms=round(1000 * took_s, 3), error=text
        )
        with self._lock:
            one = self._sums[plugin][hook]
            one.calls += 1
            one.failures += error is not None
            one.total_s += took_s
            one.worst_s = max(one.worst_s, took_s)
            self._recent[plugin].append(call)
            if text:
                self._errors[plugin] = _Trouble(text, time.monotonic())

    def _warn_of_slow(self, plugin: str, hook: str, took_s: float) -> None:
        text = f"{hook} took {1000 * took_s:.0f} ms, and every request waited"
        before, now = self._slow.get(plugin), time.monotonic()
        if before is None or now - before.at > WARN_EVERY_S:
            log.warning("plugin_slow", plugin=plugin, hook=hook, took_ms=round(1000 * took_s))
        self._slow[plugin] = _Trouble(text, now)


def described(error: BaseException) -> str:
    """Return the kind of an error and its message."""
    return f"{type(error).__name__}: {error}".strip(": ")
