"""What the numbers of an engine depend on."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from attrs import frozen


@frozen(kw_only=True)
class Numerics:
    """What decides the numbers of an engine, beside the model's files.

    :param identity: libraries and their versions, the device, the type of the cache, and whatever
        else changes a bit of them.
    :param is_reproducible: whether an answer is a function of the model, the request and its seed
        alone, bit for bit: whatever runs beside it, and whatever was cached, drafted, preempted or
        lost in a crash.
    :param problem: why it is not although :attr:`EngineSpec.reproducible` asks for it; "" else.
    """

    identity: str
    is_reproducible: bool = False
    problem: str = ""


@runtime_checkable
class HasNumerics(Protocol):
    """An engine that says what its numbers depend on; it is part of each answer's fingerprint."""

    numerics: Numerics
