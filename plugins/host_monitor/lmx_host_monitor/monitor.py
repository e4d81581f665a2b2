"""Figures of the machine and of the daemon, from psutil."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import psutil
from attrs import frozen

UNTOLD = (psutil.Error, OSError, AttributeError, KeyError, RuntimeError)
"""What psutil raises where the system does not tell a figure."""


class HostMonitor:
    """Samples the machine, and the process that this runs in.

    :param home: the folder whose disk is measured.
    """

    name = "host"

    def __init__(self, interval_s: float, home: Path) -> None:
        self.interval_s = interval_s
        self._home = home
        self._cpu = _CpuTime(0.0, 0.0)
        with suppress(*UNTOLD):
            self._cpu = _CpuTime.now()

    def sample(self) -> Mapping[str, float]:
        """Return current figures; ``cpu_share`` is that of the time since the last call. What the
        system does not tell is left out.
        """
        figures = {
            "cpu_share": self._cpu_share,
            "load_1m": lambda: psutil.getloadavg()[0],
            "memory_available_bytes": lambda: psutil.virtual_memory().available,
            "memory_used_bytes": _used_bytes,
            "swap_used_bytes": lambda: psutil.swap_memory().used,
            "disk_free_bytes": lambda: psutil.disk_usage(str(_existing(self._home))).free,
            "daemon_memory_bytes": lambda: psutil.Process().memory_info().rss,
            "daemon_open_files": lambda: psutil.Process().num_fds(),
        }
        told: dict[str, float] = {}
        for name, figure in figures.items():
            with suppress(*UNTOLD):
                told[name] = figure()
        return told

    def _cpu_share(self) -> float:
        before, self._cpu = self._cpu, _CpuTime.now()
        return self._cpu.busy_share_since(before)


def _used_bytes() -> int:
    memory = psutil.virtual_memory()
    return int(memory.total - memory.available)


@frozen
class _CpuTime:
    """Seconds of all cores together since the machine started.

    psutil's own percentages are those since the last call in the same thread, but a monitor may be
    sampled in any thread.
    """

    idle_s: float
    total_s: float

    @classmethod
    def now(cls) -> _CpuTime:
        times = psutil.cpu_times()._asdict()
        idle_s = times["idle"] + times.get("iowait", 0)
        # Times of guests are included in user and nice already.
        return cls(idle_s, sum(times.values()) - times.get("guest", 0) - times.get("guest_nice", 0))

    def busy_share_since(self, before: _CpuTime) -> float:
        passed_s = self.total_s - before.total_s
        idle_s = self.idle_s - before.idle_s
        return min(1.0, max(0.0, 1 - idle_s / passed_s)) if passed_s > 0 else 0.0


def _existing(folder: Path) -> Path:
    """Return the folder, or the nearest parent that exists."""
    return next(path for path in (folder, *folder.absolute().parents) if path.exists())
