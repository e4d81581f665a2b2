"""The memory budget of all workers together."""

from __future__ import annotations

from collections.abc import Iterable

from attrs import field, frozen, validators

from lmx_kernel.config import LIVE
from lmx_kernel.memory.machine import machine_bytes
from lmx_kernel.types import DeviceMemory

SHARE = validators.and_(validators.ge(0.0), validators.lt(1.0))


@frozen(kw_only=True)
class MemorySettings:
    """Section ``[memory]``.

    :ivar budget_bytes: what all models together may use; 0 is the memory of the machine (or of
        this container, or of the device that models are loaded into), less the reserve. Of a
        device that shares the machine's memory it is at most what the system lets it use.
    :ivar reserve_share: the share of the machine that is left to everything else, 0..1.
    :ivar guard: measure what workers really use, and enforce the following limits.
    :ivar soft_share: above this share of the budget no new request starts, and caches are freed;
        above the whole budget the worker furthest above its reservation is killed.
    :ivar soft_free_share: the same when less than this share of the machine is free.
    :ivar hard_free_share: below this share of free memory that worker is killed, too.
    """

    budget_bytes: int = field(default=0, validator=validators.ge(0), metadata=LIVE)
    reserve_share: float = field(default=0.2, validator=SHARE, metadata=LIVE)
    guard: bool = True
    soft_share: float = field(default=0.95, validator=SHARE, metadata=LIVE)
    soft_free_share: float = field(default=0.04, validator=SHARE, metadata=LIVE)
    hard_free_share: float = field(default=0.02, validator=SHARE, metadata=LIVE)

    def resolve(self, devices: Iterable[DeviceMemory] = ()) -> int:
        """Return the budget in bytes.

        :param devices: those that models are loaded into; the smallest counts.
        """
        sizes = [self._less_reserve(machine_bytes())]
        for device in devices:
            size = device.size_bytes
            sizes.append(size if device.is_shared else self._less_reserve(size))
        return self.budget_bytes or min(sizes)

    def _less_reserve(self, size_bytes: int) -> int:
        return int(size_bytes * (1 - self.reserve_share))
