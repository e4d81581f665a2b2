"""Whether a model fits beside those that are loaded, and which of them would go for it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from attrs import frozen

from lmx_kernel.memory.ledger import Ledger
from lmx_kernel.memory.sizes import format_bytes
from lmx_kernel.runtime.instance import Instance, State


@frozen
class Claim:
    """What a model needs.

    :param needed_bytes: beyond what it holds already.
    :param aside_bytes: of what is free, so much is set aside for another model.
    :param aside_models: how many models that is for, which will be loaded as well.
    """

    needed_bytes: int
    aside_bytes: int = 0
    aside_models: int = 0


@frozen
class Room:
    """There is room once these are unloaded, in this order."""

    evictions: tuple[Instance, ...]


@frozen
class Refusal:
    """There is no room, even if all were unloaded that may be."""

    reason: str


def eviction_order(instances: Iterable[Instance]) -> list[Instance]:
    """Return the models that may be unloaded for another, first the one to go first.

    Idle ones go before busy ones, those before the ones that are still loading, and among them the
    one that was not used for longest.
    """
    return sorted(
        (instance for instance in instances if instance.memory_bytes and not instance.pinned),
        key=lambda instance: (
            instance.state is State.LOADING,
            not instance.requests.is_idle,
            instance.requests.last_used,
        ),
    )


def plan_room(
    others: Sequence[Instance], claim: Claim, ledger: Ledger, max_loaded: int
) -> Room | Refusal:
    """Return how a model gets room.

    :param others: all other models.
    :param claim: what it needs.
    :param max_loaded: the most models that may be loaded at once; 0 is as many as fit.
    """
    order = eviction_order(others)
    needed_bytes = claim.needed_bytes + claim.aside_bytes
    loaded = sum(other.memory_bytes > 0 for other in others) + claim.aside_models
    surplus = max(0, loaded + 1 - max_loaded) if max_loaded else 0
    room_bytes, evictions = ledger.available_bytes, list[Instance]()
    for other in order:
        if room_bytes >= needed_bytes and len(evictions) >= surplus:
            break
        evictions.append(other)
        room_bytes += other.memory_bytes
    if room_bytes < needed_bytes:
        return Refusal(_shortage(others, order, needed_bytes, ledger))
    if len(evictions) < surplus:
        return Refusal(
            f"models.max_loaded is {max_loaded}, and too many loaded models are pinned: "
            f"{_pinned(other for other in others if other.memory_bytes)}"
        )
    return Room(tuple(evictions))


def _shortage(
    others: Iterable[Instance], order: Iterable[Instance], needed_bytes: int, ledger: Ledger
) -> str:
    unloadable = ", ".join(other.model for other in order) or "others"
    pinned = _pinned(others)
    return (
        f"{format_bytes(needed_bytes)} are needed and "
        f"{format_bytes(ledger.available_bytes)} are available "
        f"(budget {format_bytes(ledger.budget_bytes)}, held: {_listed(ledger.held)}); "
        f"unloading {unloadable} would not make enough room"
        + (f" (pinned: {pinned})" if pinned else "")
    )


def _pinned(instances: Iterable[Instance]) -> str:
    return ", ".join(sorted(instance.model for instance in instances if instance.pinned))


def _listed(held: Mapping[str, int]) -> str:
    return (
        ", ".join(f"{name} {format_bytes(size)}" for name, size in sorted(held.items()))
        or "nothing"
    )
