"""Service tiers, the names that clients know for priorities."""

from __future__ import annotations

from lmx_kernel.interfaces import HttpRequest
from lmx_kernel.types import DEFAULT_TERMS, Priority

_PRIORITIES = {
    "flex": Priority.LOW,
    "auto": Priority.NORMAL,
    "default": Priority.NORMAL,
    "priority": Priority.HIGH,
}
_TIERS = {Priority.LOW: "flex", Priority.NORMAL: "default", Priority.HIGH: "priority"}


def priority_of(tier: str | None) -> Priority:
    """Return the priority that a client asks for by a tier: the highest that it may have if it
    names none, a normal one if nobody knows the name.
    """
    return Priority.HIGH if tier is None else _PRIORITIES.get(tier, Priority.NORMAL)


def granted_tier(tier: str | None, caller: HttpRequest | None) -> str:
    """Return the tier that a client gets that asks for ``tier``.

    :param caller: its HTTP request; its key has the highest priority that it may have.
    """
    terms = caller.terms if caller else DEFAULT_TERMS
    return _TIERS[terms.grant(priority_of(tier))]
