"""What happened in the kernel, told to whoever listens: per event, never per token."""

from __future__ import annotations

from attrs import field, frozen

from lmx_kernel.types import Usage


@frozen(kw_only=True)
class ModelLoaded:
    """A worker is ready. ``memory_bytes`` is what the ledger holds for it."""

    model: str
    pid: int
    load_s: float
    memory_bytes: int


@frozen(kw_only=True)
class ModelUnloaded:
    """A worker is gone on purpose, and its memory is back."""

    model: str


@frozen(kw_only=True)
class LoadFailed:
    """A model could not be loaded."""

    model: str
    code: str
    message: str


@frozen(kw_only=True)
class WorkerCrashed:
    """A worker died or hung; ``resumed`` streams go on when it is back, ``failed`` do not."""

    model: str
    reason: str
    resumed: int
    failed: int


@frozen(kw_only=True)
class RequestFinished:
    """A request ended: ``outcome`` is ``ok``, ``cancelled`` or an error's code."""

    id: str
    model: str
    outcome: str
    usage: Usage


@frozen(kw_only=True)
class Sampled:
    """A monitor's figures."""

    monitor: str
    values: dict[str, float] = field(factory=dict)


KernelEvent = ModelLoaded | ModelUnloaded | LoadFailed | WorkerCrashed | RequestFinished | Sampled
