"""The events that the kernel publishes. None is published per token."""

from __future__ import annotations

import re
from collections.abc import Callable

from attrs import field, frozen

from lmx_kernel.types import Route, Usage


@frozen(kw_only=True)
class LoadStarted:
    """A worker is being started for a model."""

    model: str


@frozen(kw_only=True)
class LoadProgressed:
    """The share of a load that is done, 0..1; published in steps of a tenth or more."""

    model: str
    share: float


@frozen(kw_only=True)
class ModelLoaded:
    """A worker is ready. ``memory_bytes`` is what the ledger reserves for it."""

    model: str
    pid: int
    load_s: float
    memory_bytes: int


@frozen(kw_only=True)
class ModelUnloaded:
    """A worker was stopped, and its memory is free again.

    ``reason`` is one of asked, idle, evicted, turn, recycled, schedule, stopping.
    """

    model: str
    reason: str


@frozen(kw_only=True)
class LoadFailed:
    """A model could not be loaded."""

    model: str
    code: str
    message: str


@frozen(kw_only=True)
class WorkerCrashed:
    """A worker died or hung; ``resumed`` answers continue in the next one, ``failed`` do not."""

    model: str
    reason: str
    resumed: int
    failed: int


@frozen(kw_only=True)
class RequestFinished:
    """A request ended: ``outcome`` is ``ok``, ``cancelled`` or an error's code.

    ``key`` is the name of the API key that it came with, "" for none. ``caller`` is who took turns
    with others in the queue: the key, or without one the HTTP request; "" for LMX's own requests.
    ``route`` says what was asked for, and which router decided.
    """

    id: str
    model: str
    outcome: str
    usage: Usage
    key: str = ""
    caller: str = ""
    route: Route | None = None


@frozen(kw_only=True)
class RequestRefused:
    """A request was not queued: ``code`` is the error's, ``model`` is "" if it is unknown."""

    model: str
    code: str


@frozen(kw_only=True)
class Sampled:
    """A sample of a monitor."""

    monitor: str
    values: dict[str, float] = field(factory=dict)


@frozen(kw_only=True)
class MemoryPressed:
    """Memory pressure changed: ``level`` is one of ease, soft, hard.

    ``worker`` is the model whose worker was killed to relieve it, "" if none was.
    """

    level: str
    used_bytes: int
    budget_bytes: int
    worker: str = ""


@frozen(kw_only=True)
class JobChanged:
    """A job started, made progress, or ended: ``state`` is one of queued, running, paused, done,
    failed, cancelled. Progress is published at most once a second.
    """

    id: str
    kind: str
    state: str
    done: float
    total: float | None
    note: str = ""


@frozen(kw_only=True)
class Stopping:
    """The daemon is stopping: what runs may finish, nothing new starts."""


KernelEvent = (
    LoadStarted
    | LoadProgressed
    | ModelLoaded
    | ModelUnloaded
    | LoadFailed
    | WorkerCrashed
    | RequestFinished
    | RequestRefused
    | MemoryPressed
    | JobChanged
    | Sampled
    | Stopping
)

Observer = Callable[[KernelEvent], None]


def event_name(kind: type[KernelEvent]) -> str:
    """Return the name of a class of events, such as ``model_loaded``."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).lower()
