"""Whom a kept response belongs to."""

from __future__ import annotations

from lmx_kernel.interfaces import Kernel


def owner_of(kernel: Kernel) -> str:
    """Return the name of the API key of the request that is being served; "" without keys."""
    return kernel.caller.key if kernel.caller else ""
