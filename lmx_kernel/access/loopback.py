"""Whether an address is of this machine alone."""

from __future__ import annotations

import ipaddress
from functools import lru_cache


@lru_cache(maxsize=64)  # called for each request, mostly with the same few names
def is_loopback(host: str) -> bool:
    """Return whether only this machine can connect to ``host``."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
