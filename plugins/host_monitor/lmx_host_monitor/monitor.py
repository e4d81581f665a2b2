"""The machine and the daemon as psutil sees them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import psutil
from attrs import frozen


class HostMonitor:
    """Looks at the machine, and at the process it runs in."""

    name = "host"

    def __init__(self, interval_s: float, home: Path) -> None:
        self.interval_s = interval_s
        self._home = home
        self._process = psutil.Process()
        self._cpu = _CpuTime.now()

    def sample(self) -> Mapping[str, float]:
        """Return current figures; ``cpu_share`` is over the time since the last call."""
        before, self._cpu = self._cpu, _CpuTime.now()
        memory = psutil.virtual_memory()
        return {
            "cpu_share": self._cpu.busy_share_since(before),
            "load_1m": psutil.getloadavg()[0],
            "memory_available_bytes": memory.available,
            "memory_used_bytes": memory.total - memory.available,
            "swap_used_bytes": psutil.swap_memory().used,
            "disk_free_bytes": psutil.disk_usage(str(_existing(self._home))).free,
            "daemon_memory_bytes": self._process.memory_info().rss,
            "daemon_open_files": self._process.num_fds(),
        }


@frozen
class _CpuTime:
    """Seconds of all cores together since the machine started.

    psutil's own percentages are over the time since the last call of the same thread, and a
    monitor is sampled in any.
    """

    idle_s: float
    total_s: float

    @classmethod
    def now(cls) -> _CpuTime:
        times = psutil.cpu_times()._asdict()
        idle_s = times["idle"] + times.get("iowait", 0)
        # Guests are counted in user and nice already.
        return cls(idle_s, sum(times.values()) - times.get("guest", 0) - times.get("guest_nice", 0))

    def busy_share_since(self, before: _CpuTime) -> float:
        passed_s = self.total_s - before.total_s
        idle_s = self.idle_s - before.idle_s
        return min(1.0, max(0.0, 1 - idle_s / passed_s)) if passed_s > 0 else 0.0


def _existing(folder: Path) -> Path:
    """Return the folder, or the nearest one above it that exists."""
    return next(path for path in (folder, *folder.absolute().parents) if path.exists())
