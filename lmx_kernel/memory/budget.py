"""How much memory the workers may take together."""

from __future__ import annotations

from pathlib import Path

import psutil
from attrs import field, frozen, validators

from lmx_kernel.config import LIVE

CGROUP = Path("/sys/fs/cgroup")
CGROUP_LIMITS = (CGROUP / "memory.max", CGROUP / "memory" / "memory.limit_in_bytes")
SHARE = validators.and_(validators.ge(0.0), validators.lt(1.0))


@frozen(kw_only=True)
class MemorySettings:
    """Section ``[memory]``.

    :ivar budget_bytes: what all models together may take; 0 is the memory of the machine (or of
        this container, or of the device that models are loaded into), less the reserve.
    :ivar reserve_share: the share of the machine that is left to everything else, 0..1.
    :ivar guard: watch what workers really take, and act on the limits that follow.
    :ivar soft_share: above this share of the budget no request starts, and caches are freed; above
        the whole budget the worker that exceeds its reservation most is ended.
    :ivar soft_free_share: the same when less than this share of the machine is free.
    :ivar hard_free_share: below this share of the machine the worst worker is ended, too.
    """

    budget_bytes: int = field(default=0, validator=validators.ge(0), metadata=LIVE)
    reserve_share: float = field(default=0.2, validator=SHARE, metadata=LIVE)
    guard: bool = True
    soft_share: float = field(default=0.95, validator=SHARE, metadata=LIVE)
    soft_free_share: float = field(default=0.04, validator=SHARE, metadata=LIVE)
    hard_free_share: float = field(default=0.02, validator=SHARE, metadata=LIVE)

    def resolve(self, device_bytes: int | None = None) -> int:
        """Return the budget in bytes.

        :param device_bytes: of the device that models are loaded into, if it has its own.
        """
        whole = min(machine_bytes(), device_bytes or machine_bytes())
        return self.budget_bytes or int(whole * (1 - self.reserve_share))


def machine_bytes() -> int:
    """Return the memory of the machine, or of the container that it is run in."""
    total: int = psutil.virtual_memory().total
    return min([total, *filter(None, map(_read_number, CGROUP_LIMITS))])


def free_bytes() -> int:
    """Return what could be taken right now without swapping, in the container if it is one."""
    free = int(psutil.virtual_memory().available)
    limit, used = _read_number(CGROUP / "memory.max"), _read_number(CGROUP / "memory.current")
    if limit is None or used is None:
        return free
    return max(0, min(free, limit - used + _reclaimable_bytes()))


def _reclaimable_bytes() -> int:
    """Return what the container's file cache would give back."""
    try:
        lines = (CGROUP / "memory.stat").read_text().splitlines()
    except OSError:
        return 0
    found = dict(line.split(maxsplit=1) for line in lines if " " in line)
    return int(found.get("inactive_file", 0))


def _read_number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # no such controller, or "max"
        return None
