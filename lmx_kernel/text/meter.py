"""What a chat template may cost: a limit of time, and one of what it makes, paid for by size."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import Any

from attrs import define

MAX_RENDER_S = 2.0
MAX_MADE_BYTES = 128 * 1024 * 1024
ITEM_BYTES = 8
NESTED_ITEM_BYTES = 32


class ExhaustedError(Exception):
    """A template took too long, or made too much."""


@define
class _Meter:
    """What is left to a template; times are those of :func:`time.monotonic`."""

    deadline_s: float
    left_bytes: int


_meter: ContextVar[_Meter | None] = ContextVar("meter", default=None)


@contextmanager
def metered() -> Iterator[None]:
    """Limit what templates do within, all of them together. One within another changes nothing."""
    if _meter.get() is not None:
        yield
        return
    token = _meter.set(_Meter(time.monotonic() + MAX_RENDER_S, MAX_MADE_BYTES))
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
    if time.monotonic() > meter.deadline_s:
        raise ExhaustedError("it takes too long")


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


def paid(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return ``function`` so that what it returns is paid for."""

    @wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return spend(function(*args, **kwargs))

    return wrapper
