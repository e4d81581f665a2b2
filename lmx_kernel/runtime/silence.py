"""How long a worker may be silent: the one place that decides whether it hangs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from lmx_kernel.processes.activity import Activity

LOOKS = 10
"""Looks at a silent worker within one timeout."""

QUIET_LOOKS = LOOKS // 2
"""After so many looks without a message it is pinged and measured, at each further one."""

BUSY_CPU_SHARE = 0.02
"""Of one core. A worker that waits, and answers pings, takes about 0.0003."""

LEAST_CPU_S = 0.02
"""Two ticks of Linux's clock for CPU time."""

MOVED_BYTES = 64 * 1024
"""Read or newly resident: more than a process that waits ever has."""

BUSY_TIMEOUTS = 12
SLOWEST_FACTOR = 5
SLOW_DISK_BYTES_S = 200e6
"""A worker that computes, but of which no progress can be seen, may go on for the longest of: so
many timeouts; so many times its longest silence so far; the time in which a slow disk reads the
model. A healthy one may be swapped out, or wait for its device; one in an endless loop ends."""


class Silent(Protocol):
    """What is seen of a worker.

    :ivar frames: how many messages came, beats not counted.
    :ivar beats: how many beats came.
    :ivar pulse: what the last beat said; see :class:`lmx_kernel.engine.protocol.LongSteps`.
    """

    frames: int
    beats: int
    pulse: int | None

    @property
    def pid(self) -> int:
        """The process id."""
        ...


class Silence:
    """Decides by looks at equal intervals whether a worker that sends nothing is at work.

    Progress (a message, a pulse that changed, bytes read or touched) allows it any time. Mere work
    (CPU time, or beats while a device computes) is bounded by its own pace. A worker that shows
    neither, since it was stopped, say, or waits for a lock, has one timeout.

    Looks are counted, not seconds: after a sleep of the whole machine a worker gets its full time.

    :param timeout_s: how long it may show nothing at all.
    :param model_bytes: of its weights.
    :param longest_s: its longest silence so far.
    :param measure: returns what a process has done.
    :ivar look_s: the interval between two looks.
    :ivar longest_s: its longest silence, from one message to the next.
    """

    def __init__(
        self,
        timeout_s: float,
        model_bytes: int = 0,
        longest_s: float = 0.0,
        measure: Callable[[int], Activity] = Activity.of,
    ) -> None:
        self.look_s = timeout_s / LOOKS
        self.longest_s = longest_s
        self._timeout_s = timeout_s
        self._model_bytes = model_bytes
        self._measure = measure
        self._frames = self._beats = 0
        self._begin()

    def _begin(self) -> None:
        # looks since the last message, progress, and sign of any kind
        self._quiet = self._still = self._dead = 0
        self._before: Activity | None = None
        self._measured = 0  # looks since ``_before`` was measured
        self._pulse: int | None = None

    @property
    def is_long(self) -> bool:
        """Whether the worker should be pinged: for its next beat, or its Pong if it idles."""
        return self._quiet >= QUIET_LOOKS

    def look(self, worker: Silent) -> str:
        """Take one look.

        :returns: why the worker is to be given up; empty if it is not.
        """
        if worker.frames != self._frames:
            self.longest_s = max(self.longest_s, self._quiet * self.look_s)
            self._frames, self._beats = worker.frames, worker.beats
            self._begin()
            return ""
        self._quiet += 1
        self._still += 1
        self._dead += 1
        if self.is_long:
            self._weigh(worker)
        if self._dead >= LOOKS:
            return f"no sign of life for {self._timeout_s:g} seconds"
        if self._still * self.look_s >= self._patience_s:
            return f"no progress for {self._patience_s:g} seconds, though it computes"
        return ""

    @property
    def _patience_s(self) -> float:
        return max(
            BUSY_TIMEOUTS * self._timeout_s,
            SLOWEST_FACTOR * self.longest_s,
            self._model_bytes / SLOW_DISK_BYTES_S,
        )

    def _weigh(self, worker: Silent) -> None:
        """Take in what is seen of a worker beside messages."""
        now, beats, pulse = self._measure(worker.pid), worker.beats, worker.pulse
        is_first, has_beaten = self._before is None, beats != self._beats
        before = self._before or now
        self._measured += 1
        least_cpu_s = max(LEAST_CPU_S, BUSY_CPU_SHARE * self._measured * self.look_s)
        read = now.read_bytes - before.read_bytes
        touched = max(now.resident_bytes - before.resident_bytes, 0)
        changed = has_beaten and None not in (pulse, self._pulse) and pulse != self._pulse
        has_moved = changed or read + touched >= MOVED_BYTES
        works = now.cpu_s - before.cpu_s >= least_cpu_s or (has_beaten and pulse is None)
        if has_moved:
            self._still = 0
        if has_moved or works:
            self._dead = 0
        if has_moved or works or is_first:
            self._before, self._measured = now, 0
        if has_beaten:
            self._beats, self._pulse = beats, pulse
