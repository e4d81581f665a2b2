"""One model: when it is loaded and unloaded, and what is asked of it in between."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from enum import StrEnum

import structlog
from attrs import evolve, frozen

from lmx_kernel import errors, events
from lmx_kernel.config import Settings
from lmx_kernel.engine.protocol import EngineStats
from lmx_kernel.runtime import tenure
from lmx_kernel.runtime.answer import LiveAnswer
from lmx_kernel.runtime.dispatcher import Dispatcher
from lmx_kernel.runtime.shares import Shares
from lmx_kernel.runtime.supervisor import Supervisor
from lmx_kernel.types import EngineSpec, GenerationRequest, ModelCard

log = structlog.get_logger(__name__)


class State(StrEnum):
    """Where a model is between two loads."""

    ABSENT = "absent"
    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"
    COOLING = "cooling"


@frozen(kw_only=True)
class InstanceServices:
    """What an instance needs of the rest of the kernel.

    :param spec: says how a model is to be loaded now.
    :param reserve: checks the model's files and holds its memory (in bytes) while the context is
        open; waits for room, and raises LmxError where there can be none.
    :param env: the environment that the backend wants for its worker; called in a thread.
    :param shares: what callers were served by all models.
    """

    settings: Settings
    spec: Callable[[ModelCard], EngineSpec]
    reserve: Callable[[Instance], AbstractAsyncContextManager[int]]
    env: Callable[[EngineSpec], Mapping[str, str]]
    publish: Callable[[events.KernelEvent], None]
    shares: Shares


@frozen
class Ending:
    """How a model is unloaded.

    :ivar error: what requests get that are cut off; None lets all that were queued finish, and
        those that come meanwhile wait for the next load.
    :ivar refusal: what requests get that come meanwhile, where that is another error.
    :ivar drain_s: how long requests may go on before they are cut off.
    """

    reason: str
    error: errors.LmxError | None = None
    refusal: errors.LmxError | None = None
    drain_s: float = 0.0


class Instance:
    """Loads one model when it is needed, and unloads it.

    :ivar spec: what is loaded, and how.
    :ivar model: its id in the catalogue.
    :ivar requests: the model's queue.
    :ivar memory_bytes: what is reserved for it; 0 while nothing is.
    :ivar ttl_s: it is unloaded after so long without a request; None is never.
    :ivar kept: what stands for ``ttl_s`` until it is unloaded; None for nothing.
    :ivar pinned: it is not unloaded to make room for another.
    """

    def __init__(self, spec: EngineSpec, services: InstanceServices) -> None:
        self.spec = spec
        self.model = spec.card.id
        settings, publish, shares = services.settings, services.publish, services.shares
        self.requests = Dispatcher(
            self.model, settings, publish, self.begin, self._stop_worker, shares
        )
        self.memory_bytes = 0
        self.ttl_s: float | None = None
        self.kept: tenure.Kept | None = None
        self.pinned = False
        self._services = services
        self._worker = Supervisor(self.requests, settings, publish, services.env)
        self._life: asyncio.Task[None] | None = None
        self._stop: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._ending: Ending | None = None
        self._loads: set[asyncio.Future[None]] = set()

    # --- state ---

    @property
    def state(self) -> State:
        """Where the model is."""
        if self._life is None:
            is_cooling = self._worker.breaker.cooling_s(time.monotonic()) > 0
            return State.COOLING if is_cooling else State.ABSENT
        if self._worker.ready_at is None:
            return State.LOADING
        return State.DRAINING if self._ending else State.READY

    @property
    def pid(self) -> int | None:
        """The worker's process id."""
        return self._worker.run.pid if self._worker.run else None

    @property
    def loaded_share(self) -> float:
        """How much of the load is done, 0..1."""
        return self._worker.run.loaded_share if self._worker.run else 0.0

    @property
    def stats(self) -> EngineStats | None:
        """The engine's own figures, a second old at most while it works."""
        return self._worker.run.stats if self._worker.run else None

    @property
    def observed_bytes(self) -> int:
        """What the worker was last seen to take."""
        return self._worker.run.observed_bytes if self._worker.run else 0

    @property
    def has_leaked(self) -> bool:
        """Whether the worker takes more than is held for it, and much more than at first."""
        run = self._worker.run
        return run is not None and tenure.has_leaked(
            reserved_bytes=self.memory_bytes,
            first_bytes=run.first_observed_bytes,
            observed_bytes=run.observed_bytes,
        )

    def expires_in_s(self, now: float) -> float | None:
        """Return in how many seconds it is unloaded if it gets no request; None if it is not.

        :param now: monotonic seconds.
        """
        ready_at, last_used = self._worker.ready_at, self.requests.last_used
        ttl_s = tenure.stays_s(self.ttl_s, self.kept)
        if ttl_s is None or ready_at is None or self._ending or not self.requests.is_idle:
            return None
        return tenure.expires_in_s(now, ttl_s=ttl_s, ready_at=ready_at, last_used=last_used)

    # --- control ---

    def submit(self, request: GenerationRequest) -> LiveAnswer:
        """Queue a request; loads the model if need be.

        :raises QueueFullError: too many wait already.
        :raises UnavailableError: the model cools down after crashes, or is being unloaded.
        """
        self._check_open()
        return self.requests.submit(request)

    async def load(self) -> None:
        """Load without a request, and return when the model is ready.

        :raises LmxError: it cannot be loaded.
        """
        self._check_open()
        if self.state is not State.READY:
            waiter = asyncio.get_running_loop().create_future()
            self._loads.add(waiter)
            self.begin()
            try:
                await waiter
            finally:
                self._loads.discard(waiter)

    def begin(self) -> None:
        """Begin to load; how that goes is published."""
        if self._life is None:
            self._stop = asyncio.get_running_loop().create_future()
            self._life = asyncio.ensure_future(self._live())
            self._life.add_done_callback(self._over)  # also if it is cancelled before it begins

    async def yield_memory(self, turn_s: float) -> None:
        """Unload for another model that waits for memory: as soon as this one is out of use, or
        after it was loaded for ``turn_s``. So clients that use two models in turn do not swap them
        at each request.
        """
        while self._life and (rest_s := self._rest_of_turn_s(turn_s)) > 0:
            await asyncio.wait({self._life}, timeout=min(rest_s, tenure.GRACE_S))
        await self.retire("evicted" if self.requests.is_idle else "turn")

    async def retire(self, reason: str) -> None:
        """Finish what was queued so far, then unload. Requests that come meanwhile wait for the
        next load. The unload goes on even if the caller is cancelled.
        """
        if (life := self.begin_retire(reason)) is not None:
            await asyncio.wait({life})

    def begin_retire(self, reason: str) -> asyncio.Task[None] | None:
        """Begin to :meth:`retire`; return the life that is about to end, if there is one."""
        if self._life is not None:
            self._ending = self._ending or Ending(reason)
            self.requests.end_turn()
        return self._life

    async def unload(self, ending: Ending) -> None:
        """Unload: requests in flight may go on for ``ending.drain_s``, then they get
        ``ending.error``; those that come meanwhile are refused.
        """
        assert ending.error is not None
        self._ending = ending
        try:
            if self._life and ending.drain_s and self.state is not State.LOADING:
                self.requests.end_turn()
                await asyncio.wait({self._life}, timeout=ending.drain_s)
            self.requests.fail_all(ending.error)
            self._settle_loads(ending.error)
            await self._end()
        finally:
            if self._ending is ending:  # it ends also if the caller was cancelled
                self._ending = Ending(ending.reason) if self._life else None

    def observe(self, taken_bytes: int) -> None:
        """Note what the worker was seen to take."""
        if self._worker.run is not None:
            self._worker.run.observe(taken_bytes)

    def hold(self, reason: str) -> None:
        """Start no request for now, for ``reason``; "" lets them start again."""
        self.requests.hold(reason)

    def kill(self, reason: str) -> None:
        """End the worker at once; its requests are resumed on the next, as after a crash."""
        if self._worker.run is not None:
            self._worker.run.kill(reason)

    def trim(self) -> None:
        """Let the worker give back what only serves later requests."""
        if self._worker.run is not None:
            self._worker.run.trim()

    # --- inside ---

    def _check_open(self) -> None:
        cooling_s = self._worker.breaker.cooling_s(time.monotonic())
        if cooling_s:
            raise errors.UnavailableError(
                f"the worker of {self.model} crashed repeatedly; it is left alone for "
                f"{cooling_s:.0f} more seconds",
                retry_after_s=int(cooling_s) + 1,
            )
        if self._ending is not None and self._ending.error is not None:
            raise self._ending.refusal or self._ending.error

    def _rest_of_turn_s(self, turn_s: float) -> float:
        if (ready_at := self._worker.ready_at) is None:
            return tenure.GRACE_S  # its turn begins when it is loaded
        idle_since = self.requests.last_used if self.requests.is_idle else None
        now = time.monotonic()
        return tenure.rest_of_turn_s(now, turn_s=turn_s, ready_at=ready_at, idle_since=idle_since)

    def _settle_loads(self, error: errors.LmxError | None = None) -> None:
        """Wake the callers that wait for the load, with its error if it failed."""
        loads, self._loads = self._loads, set()
        for waiter in loads:
            if not waiter.done():
                waiter.set_result(None) if error is None else waiter.set_exception(error)

    def _stop_worker(self) -> None:
        if not self._stop.done():
            self._stop.set_result(self._ending.reason if self._ending else "")

    async def _end(self) -> None:
        if (life := self._life) is not None:
            self._stop_worker()
            if not self.memory_bytes:  # it waits for room, and need not any more
                life.cancel()
            await asyncio.wait({life})

    async def _live(self) -> None:
        """One life of the model: reserve memory, start a worker, start another one after a crash.
        Returns when it was stopped or cannot be loaded.
        """
        try:
            self.spec = self._services.spec(self.spec.card)
            self._services.publish(events.LoadStarted(model=self.model))
            async with self._services.reserve(self) as self.memory_bytes:
                spec = evolve(self.spec, memory_bytes=self.memory_bytes)
                await self._worker.keep_worker(spec, self._stop, self._settle_loads)
        except errors.LmxError as error:
            self._give_up(error)
        # A plugin's backend may fail in any way, and the system may refuse a process; those who
        # wait for the model get the error.
        except Exception as error:
            log.exception("load_failed", model=self.model)
            self._give_up(errors.InternalError(f"{self.model} cannot be loaded: {error!r}"))
        finally:
            self._over(asyncio.current_task())

    def _over(self, life: asyncio.Task[None] | None) -> None:
        """Reset after a life, and begin the next one if requests or loads wait."""
        if self._life is not life:
            return
        self._life, self.memory_bytes, self.kept = None, 0, None
        if self._ending is not None and self._ending.error is None:
            self._ending = None
        self.requests.reopen()
        if self.requests.waiting or self._loads:
            self.begin()

    def _give_up(self, error: errors.LmxError) -> None:
        self._services.publish(
            events.LoadFailed(model=self.model, code=error.code, message=error.message)
        )
        self.requests.fail_all(error)
        self._settle_loads(error)
