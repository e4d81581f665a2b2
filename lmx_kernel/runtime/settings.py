"""The config sections of the runtime."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import field, frozen, validators

from lmx_kernel.config import LIVE
from lmx_kernel.config.days import DAYS, Day
from lmx_kernel.runtime.admission import AdmissionRules, MayStart
from lmx_kernel.runtime.preemption import PreemptionRules
from lmx_kernel.runtime.shares import Account
from lmx_kernel.types import EngineLimits


@frozen(kw_only=True)
class ScheduledChange:
    """One entry of ``models.schedule``.

    :ivar at: the local time, ``HH:MM``.
    :ivar days: the weekdays.
    :ivar unload: models to unload, first.
    :ivar load: models to load, then.
    """

    at: str = field(validator=validators.matches_re(r"([01][0-9]|2[0-3]):[0-5][0-9]"))
    days: tuple[Day, ...] = DAYS
    unload: tuple[str, ...] = ()
    load: tuple[str, ...] = ()


@frozen(kw_only=True)
class ModelSettings:
    """Section ``[models]``: how models are loaded, kept and watched.

    :ivar context_length: tokens that one request may use, at most what the model was trained for.
    :ivar parallel: requests that run at once in one model.
    :ivar cache_tokens: tokens of all running requests and kept prompts together; 0 is twice the
        context length.
    :ivar jit: a request loads the model that it needs.
    :ivar ttl_s: a model that a request loaded is unloaded after so long without another; 0 never.
    :ivar max_loaded: models that are loaded at once; 0 is as many as fit.
    :ivar turn_s: models that do not fit together take turns: one keeps its place for so long while
        it is being used.
    :ivar autoload: models that are loaded at the start.
    :ivar schedule: models that are loaded and unloaded at a time of day.
    :ivar drain_s: what an unloaded model is still doing may go on for so long.
    :ivar load_timeout_s: a load that shows no sign of life for this long is given up: it reports
        nothing, reads nothing and computes nothing. How long a load may take is not limited.
    :ivar hang_timeout_s: a worker that shows no sign of life for this long is replaced. A
        step that computes may take longer; see :class:`lmx_kernel.runtime.silence.Silence`.
    :ivar rescan_s: how often the model folders are looked at again.
    """

    context_length: int = field(default=8192, validator=validators.ge(16), metadata=LIVE)
    parallel: int = field(
        default=8, validator=[validators.ge(1), validators.le(256)], metadata=LIVE
    )
    cache_tokens: int = field(default=0, validator=validators.ge(0), metadata=LIVE)
    jit: bool = field(default=True, metadata=LIVE)
    ttl_s: float = field(default=3600.0, validator=validators.ge(0), metadata=LIVE)
    max_loaded: int = field(default=0, validator=validators.ge(0), metadata=LIVE)
    turn_s: float = field(default=10.0, validator=validators.ge(0), metadata=LIVE)
    autoload: tuple[str, ...] = ()
    schedule: tuple[ScheduledChange, ...] = field(default=(), metadata=LIVE)
    drain_s: float = field(default=30.0, validator=validators.ge(0), metadata=LIVE)
    load_timeout_s: float = field(default=120.0, validator=validators.gt(0), metadata=LIVE)
    hang_timeout_s: float = field(default=10.0, validator=validators.gt(0), metadata=LIVE)
    rescan_s: float = field(default=10.0, validator=validators.gt(0))


@frozen(kw_only=True)
class QueueSettings:
    """Section ``[queue]``: what happens to requests that cannot run at once.

    :ivar max_waiting: requests that may wait for one model; more are refused at once, unless their
        priority is higher.
    :ivar max_wait_s: a request that has not begun after this long is refused.
    :ivar expected_tokens: room in the cache that an answer of unknown length is admitted with.
        Should it need more and there is none, the youngest answer is paused until there is.
    :ivar raise_after_s: a request that waits for so long counts as one of the next higher priority,
        one at a time, and after twice as long of the one after that: it starts late, but it does.
    :ivar max_preemptions: a request that runs is put out at most so many times for one of higher
        priority; it goes on later where it was.
    :ivar min_run_s: it runs at least so long before it is put out again.
    """

    max_waiting: int = field(default=256, validator=validators.ge(0), metadata=LIVE)
    max_wait_s: float = field(default=300.0, validator=validators.gt(0), metadata=LIVE)
    expected_tokens: int = field(default=512, validator=validators.ge(1), metadata=LIVE)
    raise_after_s: float = field(default=60.0, validator=validators.ge(0), metadata=LIVE)
    max_preemptions: int = field(default=3, validator=validators.ge(0), metadata=LIVE)
    min_run_s: float = field(default=2.0, validator=validators.ge(0), metadata=LIVE)

    @property
    def preemption(self) -> PreemptionRules:
        """How far a running request is protected from those of higher priority."""
        return PreemptionRules(max_preemptions=self.max_preemptions, min_run_s=self.min_run_s)

    def admission(
        self,
        limits: EngineLimits,
        accounts: Mapping[str, Account],
        may_start: MayStart | None,
        now_s: float,
    ) -> AdmissionRules:
        """Return what decides who starts at ``now_s``; see :class:`AdmissionRules`."""
        return AdmissionRules(
            limits=limits,
            expected_tokens=self.expected_tokens,
            accounts=accounts,
            may_start=may_start,
            now_s=now_s,
            raise_after_s=self.raise_after_s,
        )
