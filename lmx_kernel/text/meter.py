"""What a chat template may cost: a limit of time, one of what it makes, and one of steps."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from attrs import define

MAX_RENDER_S = 2.0
"""Of processor time."""

MAX_MADE_BYTES = 128 * 1024 * 1024
MAX_STEPS = 256 * 1024 * 1024
"""Steps of loops that nothing can interrupt; one is a byte compared or copied, 3 ns at most."""
STEPS_OF_ITEM = 64
"""An item of a list, or what a filter written in Python does with one."""
ITEM_BYTES = 8
NESTED_ITEM_BYTES = 32


class ExhaustedError(Exception):
    """A template took too long, or made too much."""


@define
class _Meter:
    """What is left to a template. Its time is the processor time of its thread
    (:func:`time.thread_time`): on a busy machine every template takes long by the clock.
    """

    deadline_s: float
    left_bytes: int
    left_steps: int = MAX_STEPS


_meter: ContextVar[_Meter | None] = ContextVar("meter", default=None)


@contextmanager
def metered() -> Iterator[None]:
    """Limit what templates do within, all of them together. One within another changes nothing."""
    if _meter.get() is not None:
        yield
        return
    token = _meter.set(_Meter(time.thread_time() + MAX_RENDER_S, MAX_MADE_BYTES))
    try:
        yield
    finally:
        _meter.reset(token)


def charge(size_bytes: int) -> None:
    """Pay for ``size_bytes``; nothing is paid where :func:`metered` is not in force.

    :raises ExhaustedError: the template made too much, or took too long.
    """
    meter = _meter.get()
    if meter is None:
        return
    meter.left_bytes -= size_bytes
    if meter.left_bytes < 0:
        raise ExhaustedError("it makes too much of what it is given")
    if time.thread_time() > meter.deadline_s:
        raise ExhaustedError("it takes too long")


def work(steps: int) -> None:
    """Pay for a loop of so many steps before it begins, since it cannot be stopped.

    :raises ExhaustedError: the template takes too long.
    """
    meter = _meter.get()
    if meter is None:
        return
    meter.left_steps -= steps
    if meter.left_steps < 0 or time.thread_time() > meter.deadline_s:
        raise ExhaustedError("it takes too long")


def steps_of(value: Any) -> int:
    """Return the steps of reading a value once, nested ones and their texts included; counting
    them is paid for as well.
    """
    if isinstance(value, str | bytes):
        return 1 + len(value)
    if not isinstance(value, list | tuple | dict):
        return 1
    steps, waiting = 0, [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, list | tuple | dict):
            work(STEPS_OF_ITEM * (1 + len(item)))
            steps += STEPS_OF_ITEM * len(item)
            waiting += [*item, *item.values()] if isinstance(item, dict) else item
        elif isinstance(item, str | bytes):
            steps += len(item)
    return 1 + steps


def charge_text(value: Any) -> None:
    """Pay for the text of a list or dictionary before it is written."""
    if isinstance(value, list | tuple | dict):
        charge(steps_of(value))


def spend(value: Any) -> Any:
    """Pay for a value that was made, and return it."""
    if isinstance(value, str | bytes):
        charge(1 + len(value))
    elif isinstance(value, list | tuple | dict):
        charge(1 + ITEM_BYTES * len(value))
    elif isinstance(value, int):
        charge(1 + value.bit_length() // 8)
    else:
        charge(1)
    return value


def weigh(value: Any) -> Any:
    """Pay for all items in nested lists and dictionaries, as often as they occur; return the
    value.
    """
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, list | tuple | dict):
            charge(NESTED_ITEM_BYTES * (1 + len(item)))
            waiting += item.values() if isinstance(item, dict) else item
    return value
