"""How much memory the workers may take together."""

from __future__ import annotations

from pathlib import Path

import psutil
from attrs import field, frozen, validators

CGROUP_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


@frozen(kw_only=True)
class MemorySettings:
    """Section ``[memory]``.

    :ivar budget_bytes: what all models together may take; 0 is the machine's memory (or this
        container's) less the reserve.
    :ivar reserve_share: the share of the machine that is left to everything else, 0..1.
    """

    budget_bytes: int = field(default=0, validator=validators.ge(0))
    reserve_share: float = field(default=0.2, validator=[validators.ge(0.0), validators.lt(1.0)])

    def resolve(self) -> int:
        """Return the budget in bytes."""
        return self.budget_bytes or int(machine_bytes() * (1 - self.reserve_share))


def machine_bytes() -> int:
    """Return the memory of the machine, or of the container that it is run in."""
    total: int = psutil.virtual_memory().total
    return min([total, *filter(None, map(_read_limit, CGROUP_LIMITS))])


def free_bytes() -> int:
    """Return what could be taken right now without swapping."""
    return int(psutil.virtual_memory().available)


def _read_limit(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # no such controller, or "max"
        return None
