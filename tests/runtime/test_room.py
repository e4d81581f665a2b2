"""Who goes for whom, and when: the pure decisions about models that are loaded."""

from __future__ import annotations

import pytest
from attrs import define, field, frozen

from lmx_kernel.memory.ledger import Ledger
from lmx_kernel.runtime import tenure
from lmx_kernel.runtime.instance import State
from lmx_kernel.runtime.room import Claim, Refusal, Room, plan_room


@frozen
class Requests:
    is_idle: bool = True
    last_used: float = 0.0


@define
class Loaded:
    """What is looked at of an instance."""

    model: str
    memory_bytes: int = 100
    pinned: bool = False
    state: State = State.READY
    requests: Requests = field(factory=Requests)


def plan(others, needed_bytes, max_loaded=0):
    """Plan for a budget of 300 bytes; return the ids to unload, or the reason against it."""
    ledger = Ledger(budget=lambda: 300, free_bytes=lambda: 10**9)
    ledger.held = {other.model: other.memory_bytes for other in others if other.memory_bytes}
    room = plan_room(others, Claim(needed_bytes), ledger, max_loaded)
    if isinstance(room, Room):
        return [other.model for other in room.evictions]
    assert isinstance(room, Refusal)
    return room.reason


def test_nobody_goes_while_there_is_room():
    assert plan([Loaded("a"), Loaded("b")], 100) == []
    assert plan([Loaded("a"), Loaded("b")], 100, max_loaded=3) == []


def test_idle_models_go_first_and_among_them_the_one_used_longest_ago():
    busy = Loaded("busy", requests=Requests(is_idle=False))
    new, old = Loaded("new", requests=Requests(last_used=2.0)), Loaded("old")
    assert plan([busy, new, old], 100) == ["old"]
    assert plan([busy, new, old], 300) == ["old", "new", "busy"]
    loading = Loaded("loading", state=State.LOADING)
    assert plan([loading, busy, new], 300) == ["new", "busy", "loading"]


def test_no_more_models_than_allowed_even_where_memory_is_left():
    others = [Loaded("a"), Loaded("b", requests=Requests(last_used=1.0))]
    assert plan(others, 10, max_loaded=2) == ["a"]
    assert plan(others, 10, max_loaded=1) == ["a", "b"]
    assert plan([Loaded("a"), Loaded("waits", memory_bytes=0)], 10, max_loaded=2) == []


def test_a_refusal_says_what_is_in_the_way():
    pinned = Loaded("pinned", pinned=True)
    assert "unloading a would not make enough room (pinned: pinned)" in plan(
        [Loaded("a"), pinned], 250
    )
    assert "max_loaded is 1" in plan([Loaded("a"), pinned], 10, max_loaded=1)


@pytest.mark.parametrize(
    ("now", "idle_since", "rest_s"),
    [(102, None, 8), (115, None, -5), (102, 101.75, 0.25), (102, 101, -0.5), (109.75, 109.5, 0.25)],
)
def test_a_model_keeps_its_turn_while_it_is_used(now, idle_since, rest_s):
    assert tenure.rest_of_turn_s(now, turn_s=10, ready_at=100, idle_since=idle_since) == rest_s


def test_time_to_live_counts_from_the_last_use_or_from_the_load():
    assert tenure.expires_in_s(110, ttl_s=60, ready_at=100, last_used=105) == 55
    assert tenure.expires_in_s(110, ttl_s=60, ready_at=100, last_used=50) == 50
    assert tenure.expires_in_s(200, ttl_s=60, ready_at=100, last_used=105) == 0


@pytest.mark.parametrize(
    ("first_mib", "observed_mib", "leaked"),
    [
        (400, 450, False),  # less than is reserved
        (480, 530, False),  # grown by less than 64 MiB
        (400, 510, True),
        (0, 900, False),  # not seen since it was ready
        (1000, 1200, False),  # an estimate that was wrong, and grown by less than a quarter
    ],
)
def test_a_leak_is_growth_beyond_what_is_reserved(first_mib, observed_mib, leaked):
    assert leaked == tenure.has_leaked(
        reserved_bytes=500 << 20, first_bytes=first_mib << 20, observed_bytes=observed_mib << 20
    )
