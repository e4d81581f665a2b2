"""Service tiers: what this dialect calls priorities.

A request takes ``auto``, the default, or ``standard_only``; its answer says which tier it got
(https://platform.claude.com/docs/en/api/service-tiers). There is no tier for a low priority: it is
answered as ``standard``.
"""

from __future__ import annotations

from typing import Literal

from lmx_kernel.interfaces import HttpRequest
from lmx_kernel.types import Priority, Terms

AskedTier = Literal["auto", "standard_only"]
Tier = Literal["standard", "priority"]


def priority_of(tier: AskedTier | None) -> Priority:
    """Return the priority that a client asks for: ``auto`` is the highest that it may have."""
    return Priority.NORMAL if tier == "standard_only" else Priority.HIGH


def granted_tier(tier: AskedTier | None, caller: HttpRequest | None) -> Tier:
    """Return the tier that a client gets that asks for ``tier``.

    :param caller: its HTTP request; its key has the highest priority that it may have.
    """
    terms = caller.terms if caller else Terms()
    is_high = terms.grant(priority_of(tier)) is Priority.HIGH
    return "priority" if is_high else "standard"
