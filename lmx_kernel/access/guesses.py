"""Slows down whoever tries keys: answers to wrong ones wait longer and longer."""

from __future__ import annotations

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable
from functools import lru_cache

FREE = 5  # wrong keys of one address that are answered at once: a wrong setting is no attack
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.25, 4.0
FORGOTTEN_S = 300.0
MAX_ADDRESSES = 4096  # the one that was silent for longest is forgotten first
IPV6_BITS = 64  # one customer has at least so many addresses: RFC 6177


class WrongKeys:
    """Counts the wrong keys that each address sent, in bounded memory.

    :param now: returns monotonic seconds.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._counts: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._counts)

    def note(self, client: str) -> float:
        """Note a wrong key, and return for how many seconds its answer is held back.

        :param client: the address it came from.
        """
        network, now = _network(client), self._now()
        count, last = self._counts.pop(network, (0, now))
        count = 1 if now - last > FORGOTTEN_S else count + 1
        self._counts[network] = (count, now)
        if len(self._counts) > MAX_ADDRESSES:
            self._counts.popitem(last=False)
        if count <= FREE:
            return 0.0
        doublings = min(count - FREE - 1, 16)  # the longest is reached long before
        return min(LONGEST_PAUSE_S, FIRST_PAUSE_S * (1 << doublings))


@lru_cache(1024)
def _network(client: str) -> str:
    """Return what an address is counted as."""
    try:
        address = ipaddress.ip_address(client.partition("%")[0])
    except ValueError:
        return client
    if address.version == 4:
        return client
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, IPV6_BITS), strict=False))
