"""How long a model stays loaded: pure functions over times in monotonic seconds and sizes."""

from __future__ import annotations

from attrs import frozen

GRACE_S = 0.5
"""Between two requests of a client that waits for each answer: the model counts as in use."""

LEAK_SHARE, LEAK_BYTES = 0.25, 64 << 20


@frozen
class Kept:
    """How long a loaded model stays without a request, as the last one said; None is for ever."""

    ttl_s: float | None


def stays_s(ttl_s: float | None, kept: Kept | None) -> float | None:
    """Return how long a model stays without a request; None is for ever.

    :param ttl_s: what it was loaded with.
    """
    return ttl_s if kept is None else kept.ttl_s


def expires_in_s(now: float, *, ttl_s: float, ready_at: float, last_used: float) -> float:
    """Return in how many seconds an idle model is unloaded if it gets no request."""
    return max(0.0, max(last_used, ready_at) + ttl_s - now)


def rest_of_turn_s(
    now: float, *, turn_s: float, ready_at: float, idle_since: float | None
) -> float:
    """Return for how many seconds a model keeps its place while another one waits for it; not
    positive if it should go now.

    :param turn_s: the longest that it keeps its place while it is in use.
    :param idle_since: None while it is in use.
    """
    rest_s = ready_at + turn_s - now
    return rest_s if idle_since is None else min(rest_s, idle_since + GRACE_S - now)


def has_leaked(*, reserved_bytes: int, first_bytes: int, observed_bytes: int) -> bool:
    """Return whether a worker takes more than is reserved for it, and much more than at first.

    :param first_bytes: what it took when it was ready; 0 where that was not seen yet.
    """
    if not first_bytes or observed_bytes <= reserved_bytes:
        return False
    return observed_bytes - first_bytes > max(LEAK_SHARE * first_bytes, LEAK_BYTES)
