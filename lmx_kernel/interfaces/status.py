"""The state of the kernel and of its models."""

from __future__ import annotations

from attrs import frozen

from lmx_kernel.engine.protocol import EngineStats


@frozen(kw_only=True)
class ModelFigures:
    """A model's statistics; times are of the last 256 answers, None if there was none.

    :ivar load_s: the duration of the last load.
    :ivar failures: requests that ended with an error.
    :ivar resumed: answers that were resumed after a crash.
    :ivar tokens_per_s: of one answer, on average.
    """

    loads: int = 0
    load_failures: int = 0
    unloads: int = 0
    load_s: float | None = None
    requests: int = 0
    failures: int = 0
    crashes: int = 0
    resumed: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    tokens_per_s: float | None = None
    first_token_p50_s: float | None = None
    first_token_p95_s: float | None = None


@frozen(kw_only=True)
class ModelStatus:
    """A model that was requested since the start.

    :ivar loaded_share: how much of a load is done, 0..1.
    :ivar wait_s: the expected time until a new request would start.
    :ivar memory_bytes: what is reserved for it.
    :ivar observed_bytes: the last measured memory of its worker.
    :ivar expires_in_s: when it is unloaded if no request comes; None if it is not.
    """

    id: str
    state: str
    pid: int | None
    backend: str
    context_length: int
    parallel: int
    loaded_share: float
    running: int
    waiting: int
    wait_s: float
    pinned: bool
    ttl_s: float | None
    expires_in_s: float | None
    memory_bytes: int
    observed_bytes: int
    engine: EngineStats | None
    figures: ModelFigures


@frozen(kw_only=True)
class KeyStatus:
    """What an API key has used since the daemon's start.

    :ivar open: requests that have not ended.
    :ivar requests: all that were queued.
    :ivar prompt_tokens: those that were computed; cached ones do not count.
    """

    name: str
    open: int
    requests: int
    prompt_tokens: int
    completion_tokens: int


@frozen(kw_only=True)
class KernelStatus:
    """The state of the daemon.

    :ivar safe_mode: started without auto-load and third-party plugins, after unclean starts.
    :ivar memory_observed_bytes: the last measured memory of all workers.
    :ivar memory_pressure: ease, soft or hard.
    :ivar disk_free_bytes: where LMX keeps its own files.
    :ivar stored_answers: how many answers are kept for later requests.
    :ivar background_answers: how many of them are computed at the moment.
    :ivar keys: those that were used.
    """

    version: str
    uptime_s: float
    draining: bool
    safe_mode: bool
    models: tuple[ModelStatus, ...]
    memory_machine_bytes: int
    memory_budget_bytes: int
    memory_reserved_bytes: int
    memory_available_bytes: int
    memory_observed_bytes: int
    memory_pressure: str
    disk_free_bytes: int
    stored_answers: int = 0
    background_answers: int = 0
    keys: tuple[KeyStatus, ...] = ()
