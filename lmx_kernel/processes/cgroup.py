"""The limits of the container or service that this process runs in: Linux' control groups, of
either version (cgroups(7)). Other systems have none, and all of this is empty there.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from attrs import frozen

ROOT = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")
NO_LIMIT = 1 << 60
"""From here on a number of version 1 stands for no limit."""


@frozen(kw_only=True)
class MemoryLimit:
    """The limit of one group, in bytes.

    :ivar used_bytes: what its processes use, with files that the system keeps in memory.
    :ivar cache_bytes: the part of it that can be taken back: files that were not used lately.
    """

    limit_bytes: int
    used_bytes: int = 0
    cache_bytes: int = 0

    @property
    def free_bytes(self) -> int:
        """What the group may still use."""
        return max(0, self.limit_bytes - self.used_bytes + self.cache_bytes)


def memory_limits() -> list[MemoryLimit]:
    """Return the limit of each group that this process belongs to; none without limits."""
    names = ("memory.max", "memory.current", "inactive_file")
    found = [_memory_limit(group, *names) for group in _groups("")]
    names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    found += [_memory_limit(group, *names) for group in _groups("memory")]
    return [limit for limit in found if limit is not None]


def cpu_limit() -> float | None:
    """Return how many processors may be busy at a time, such as 1.5; None without a limit."""
    quotas = [_read(group / "cpu.max").split() for group in _groups("")]
    for group in _groups("cpu"):
        quotas.append([_read(group / name) for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us")])
    shares = [_share(*map(_number, quota)) for quota in quotas if len(quota) == 2]
    return min((share for share in shares if share), default=None)


def _groups(controller: str) -> Iterator[Path]:
    """Yield the folders of this process' group and of those around it.

    :param controller: of version 1; "" for version 2, which has one tree for all.
    """
    top = ROOT / controller
    path = PurePosixPath("/")
    for line in _read(OWN).splitlines():
        _, names, own = (*line.split(":", 2), "", "")[:3]
        if controller in names.split(",") and ".." not in own:
            path = PurePosixPath("/", own)
    # A container may see its host's path, while its own group is at the top.
    for inner in (path, *path.parents):
        yield top / inner.relative_to("/")


def _memory_limit(group: Path, limit: str, used: str, cache: str) -> MemoryLimit | None:
    limit_bytes = _number(_read(group / limit))
    if limit_bytes is None or limit_bytes >= NO_LIMIT:
        return None
    stat = dict(line.split(maxsplit=1) for line in _read(group / "memory.stat").splitlines())
    return MemoryLimit(
        limit_bytes=limit_bytes,
        used_bytes=_number(_read(group / used)) or 0,
        cache_bytes=_number(stat.get(cache, "")) or 0,
    )


def _share(quota: int | None, period: int | None) -> float | None:
    return quota / period if quota and period and quota > 0 < period else None


def _number(text: str) -> int | None:
    try:
        return int(text)
    except ValueError:  # "max", or no such file
        return None


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except (OSError, ValueError):
        return ""
