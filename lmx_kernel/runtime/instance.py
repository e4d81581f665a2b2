"""One model's worker from load to unload: a single task walks it through its life."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, suppress
from enum import StrEnum
from functools import partial
from typing import Any

import structlog
from attrs import evolve, frozen

from lmx_kernel import errors, events
from lmx_kernel.config import Settings
from lmx_kernel.engine.protocol import EngineStats
from lmx_kernel.runtime.answer import LiveAnswer
from lmx_kernel.runtime.breaker import Breaker
from lmx_kernel.runtime.dispatcher import Dispatcher
from lmx_kernel.runtime.process import WorkerProcess
from lmx_kernel.runtime.settings import ModelSettings
from lmx_kernel.types import EngineLimits, EngineSpec, GenerationRequest, ModelCard
from lmx_kernel.worker import messages as wire

TICKS = 10  # looks at a silent worker within one timeout
MAX_LOST_LOADS = 2
GRACE_S = 0.5  # between two requests of one who waits for each answer
TOLD_SHARE = 0.1
LEAK_SHARE, LEAK_BYTES = 0.25, 64 << 20
log = structlog.get_logger(__name__)


class State(StrEnum):
    """Where a model is in its life."""

    ABSENT = "absent"
    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"
    COOLING = "cooling"


class WorkerLostError(Exception):
    """The worker died or hung; the message says how."""


@frozen(kw_only=True)
class InstanceServices:
    """What an instance needs of the rest of the kernel.

    :param spec: says how a model is to be loaded now.
    :param reserve: checks the model's files and holds its memory (in bytes) while the context is
        open; waits for room, and raises LmxError where there can be none.
    :param env: the environment that the backend wants for its worker; asked in a thread.
    """

    settings: Settings
    spec: Callable[[ModelCard], EngineSpec]
    reserve: Callable[[Instance], AbstractAsyncContextManager[int]]
    env: Callable[[EngineSpec], Mapping[str, str]]
    publish: Callable[[events.KernelEvent], None]


class Instance:
    """Loads one model when it is asked for, keeps its worker alive, and ends it.

    :ivar spec: what is loaded, and how.
    :ivar requests: the model's queue.
    :ivar memory_bytes: what is reserved for it.
    :ivar model: its id in the catalogue.
    :ivar observed_bytes: what its worker was last seen to take.
    :ivar stats: the engine's own figures, a second old at most while it works.
    :ivar loaded_share: how much of the load is done, 0..1.
    :ivar ttl_s: it is unloaded after so long without a request; None is never.
    :ivar pinned: it is not unloaded to make room for another.
    """

    def __init__(self, spec: EngineSpec, services: InstanceServices) -> None:
        self.spec = spec
        self.model = spec.card.id
        self.requests = Dispatcher(self.model, services.settings, services.publish, self._begin)
        self.memory_bytes = 0
        self.observed_bytes = 0
        self._first_observed_bytes = 0
        self.stats: EngineStats | None = None
        self.loaded_share = 0.0
        self.ttl_s: float | None = None
        self.pinned = False
        self._services = services
        self._state = State.ABSENT
        self._breaker = Breaker()
        self._lost_loads = 0
        self._doing = ""
        self._worker: WorkerProcess | None = None
        self._task: asyncio.Task[None] | None = None
        self._stop: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._retirement: asyncio.Task[None] | None = None
        self._loads: set[asyncio.Future[None]] = set()
        self._refusal: errors.LmxError | None = None
        self._ready_at = 0.0
        self._why = ""

    @property
    def state(self) -> State:
        """Where the model is in its life."""
        if self._state is State.ABSENT and self._breaker.cooling_s(time.monotonic()):
            return State.COOLING
        return self._state

    @property
    def pid(self) -> int | None:
        """The worker's process id."""
        return self._worker.pid if self._worker else None

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
        if self._state is not State.READY:
            waiter = asyncio.get_running_loop().create_future()
            self._loads.add(waiter)
            self._begin()
            await waiter

    def expires_in_s(self, now: float) -> float | None:
        """Return in how many seconds it is unloaded if nobody asks; None if it is not.

        :param now: monotonic seconds.
        """
        if self.ttl_s is None or self._state is not State.READY or not self.requests.is_idle:
            return None
        return max(0.0, max(self.requests.last_used, self._ready_at) + self.ttl_s - now)

    async def yield_memory(self, turn_s: float) -> None:
        """Make room for another model, once it had its turn: when nobody asks any more, or it was
        there for ``turn_s``. Bots that use two models in turn do not swap them at each request.
        """
        while self._task and (rest_s := self._rest_of_turn_s(turn_s)) > 0:
            await asyncio.wait({self._task}, timeout=min(rest_s, GRACE_S))
        await self.retire("evicted" if self.requests.is_idle else "turn")

    async def retire(self, reason: str) -> None:
        """Finish what was asked so far, then unload. Requests that come meanwhile wait.

        Goes on to its end even if whoever called is cancelled.
        """
        if self._retirement is None and self._task is not None:
            self._retirement = asyncio.ensure_future(self._retire(self._task, reason))
        if self._retirement is not None:
            await asyncio.shield(self._retirement)

    async def unload(self, error: errors.LmxError, reason: str, drain_s: float = 0.0) -> None:
        """Unload: what is in flight may go on for ``drain_s``, then it gets ``error``, as does
        whoever asks meanwhile.
        """
        self._refusal, self._why = error, reason
        try:
            if drain_s and self._state is not State.LOADING:
                with suppress(TimeoutError):
                    async with asyncio.timeout(drain_s):
                        await self.retire(reason)
            self.requests.fail_all(error)
            self._settle_loads(error)
            await self._end()
        finally:
            self._refusal = None

    def observe(self, taken_bytes: int) -> None:
        """Note what the worker was seen to take."""
        device_bytes = self.stats.memory_bytes if self.stats else 0
        self.observed_bytes = max(taken_bytes, device_bytes)
        if self._state is State.READY and not self._first_observed_bytes:
            self._first_observed_bytes = self.observed_bytes

    @property
    def has_leaked(self) -> bool:
        """Whether the worker takes more than is held for it, and much more than at first."""
        growth = self.observed_bytes - self._first_observed_bytes
        return self.observed_bytes > self.memory_bytes and growth > max(
            LEAK_SHARE * self._first_observed_bytes, LEAK_BYTES
        )

    def hold(self, reason: str) -> None:
        """Start no request for now, since ``reason``; "" lets them start again."""
        self.requests.hold(reason)

    def kill(self, reason: str) -> None:
        """End the worker at once; its requests are resumed on the next, as after a crash."""
        if self._worker is not None:
            self._why = reason
            self._worker.kill()

    def trim(self) -> None:
        """Let the worker give back what only serves later requests."""
        if self._worker is not None and self._state is not State.LOADING:
            self._worker.send(wire.Trim())

    # --- life ---

    def _check_open(self) -> None:
        cooling_s = self._breaker.cooling_s(time.monotonic())
        if cooling_s:
            raise errors.UnavailableError(
                f"the worker of {self.model} crashed repeatedly; it is left alone for "
                f"{cooling_s:.0f} more seconds",
                retry_after_s=int(cooling_s) + 1,
            )
        if self._refusal is not None:
            raise self._refusal

    def _rest_of_turn_s(self, turn_s: float) -> float:
        if self._state is State.LOADING:
            return GRACE_S  # it has not begun yet
        now = time.monotonic()
        rest_s = self._ready_at + turn_s - now
        if self.requests.is_idle:
            return min(rest_s, self.requests.last_used + GRACE_S - now)
        return rest_s

    def _settle_loads(self, error: errors.LmxError | None = None) -> None:
        """Tell whoever waits for the load how it went."""
        loads, self._loads = self._loads, set()
        for waiter in loads:
            if not waiter.done():
                waiter.set_result(None) if error is None else waiter.set_exception(error)

    def _begin(self) -> None:
        if self._task is None:
            self._state = State.LOADING
            self._stop = asyncio.get_running_loop().create_future()
            self._task = asyncio.ensure_future(self._live())
            self._task.add_done_callback(self._over)  # also if it is cancelled before it begins

    async def _retire(self, life: asyncio.Task[None], reason: str) -> None:
        self._state, self._why = State.DRAINING, reason
        self.requests.end_turn()
        quiet = asyncio.ensure_future(self.requests.quiet.wait())
        await asyncio.wait({quiet, life}, return_when=asyncio.FIRST_COMPLETED)
        quiet.cancel()
        self._retirement = None
        if not life.done():
            await self._end()

    async def _end(self) -> None:
        if not self._stop.done():
            self._stop.set_result(None)
        if self._task is not None:
            if not self.memory_bytes:  # it waits for room, and need not any more
                self._task.cancel()
            await asyncio.wait({self._task})

    async def _live(self) -> None:
        """From the wish for a worker until it was stopped, or cannot be had."""
        try:
            self._state, self.loaded_share, self._why = State.LOADING, 0.0, ""
            self.spec = self._services.spec(self.spec.card)
            self._services.publish(events.LoadStarted(model=self.model))
            async with self._services.reserve(self) as self.memory_bytes:
                await self._keep_worker()
        except errors.LmxError as error:
            self._give_up(error)
        # A plugin's backend may fail in any way, and the system may refuse a process; whoever
        # waits here must hear of it.
        except Exception as error:
            log.exception("load_failed", model=self.model)
            self._give_up(errors.InternalError(f"{self.model} cannot be loaded: {error!r}"))
        finally:
            self._over(asyncio.current_task())

    def _over(self, life: asyncio.Task[None] | None) -> None:
        """Make ready for the next life, if this one was not the last already."""
        if self._task is not life:
            return
        self._state, self.memory_bytes, self._task = State.ABSENT, 0, None
        self.requests.reopen()
        if self.requests.waiting or self._loads:
            self._begin()

    def _give_up(self, error: errors.LmxError) -> None:
        self._services.publish(
            events.LoadFailed(model=self.model, code=error.code, message=error.message)
        )
        self.requests.fail_all(error)
        self._settle_loads(error)

    async def _keep_worker(self) -> None:
        while not self._stop.done():
            try:
                await self._run_worker()
            except WorkerLostError as lost:
                self._crashed(str(lost))

    async def _run_worker(self) -> None:
        opened: asyncio.Future[EngineLimits] = asyncio.get_running_loop().create_future()
        began, self._doing = time.monotonic(), ""
        env = await asyncio.to_thread(self._services.env, self.spec)
        worker = await WorkerProcess.start(env, partial(self._receive, opened))
        self._worker = worker
        try:
            models = self._services.settings.get(ModelSettings)
            worker.send(wire.Open(evolve(self.spec, memory_bytes=self.memory_bytes)))
            await self._watch(worker, opened, models.load_timeout_s)
            if opened.done():
                self._ready(worker, opened.result(), time.monotonic() - began)
                await self._watch(worker, self._stop, models.hang_timeout_s)
                self.requests.detach()
                self._services.publish(events.ModelUnloaded(model=self.model, reason=self._why))
        finally:
            self._worker, self.stats = None, None
            self.observed_bytes = self._first_observed_bytes = 0
            await worker.close()

    def _receive(self, opened: asyncio.Future[EngineLimits], message: wire.Message) -> None:
        if isinstance(message, wire.Opened):
            opened.set_result(message.limits)
        elif isinstance(message, wire.LoadRefused):
            opened.set_exception(errors.from_code(message.code, message.message))
        elif isinstance(message, wire.Observed):
            self.stats = message.stats
        elif isinstance(message, wire.Loading):
            self._doing = message.doing
            self._progressed(message.share)
        else:
            self.requests.receive(message)

    def _progressed(self, share: float) -> None:
        if share - self.loaded_share >= TOLD_SHARE:
            self.loaded_share = share
            self._services.publish(events.LoadProgressed(model=self.model, share=share))

    async def _watch(
        self, worker: WorkerProcess, goal: asyncio.Future[Any], timeout_s: float
    ) -> None:
        """Wait for ``goal`` or for the wish to stop.

        Silence is counted in looks, not by the clock: after a sleep of the whole machine a worker
        gets its full time again.

        :raises WorkerLostError: the worker died, or gave no sign of life for ``timeout_s``.
        """
        waits = {goal, self._stop, worker.exited}
        frames, silent = worker.frames, 0
        while silent < TICKS:
            await asyncio.wait(
                waits, timeout=timeout_s / TICKS, return_when=asyncio.FIRST_COMPLETED
            )
            if goal.done() or self._stop.done():
                return
            if worker.exited.done():
                exited = f"{worker.exited.result()} {worker.last_words}".strip()
                raise WorkerLostError(self._why or self._told(exited))
            silent = 0 if worker.frames != frames else silent + 1
            frames = worker.frames
            if silent >= TICKS // 2:
                worker.send(wire.Ping())
        raise WorkerLostError(self._told(f"no sign of life for {timeout_s:g} seconds"))

    def _told(self, end: str) -> str:
        return f"{self._doing}: {end}" if self._doing else end

    def _ready(self, worker: WorkerProcess, limits: EngineLimits, load_s: float) -> None:
        self._state, self._lost_loads = State.READY, 0
        self._ready_at, self.loaded_share, self._doing = time.monotonic(), 1.0, ""
        self._settle_loads()
        self._services.publish(
            events.ModelLoaded(
                model=self.model,
                pid=worker.pid,
                load_s=load_s,
                memory_bytes=self.memory_bytes,
            )
        )
        self.requests.attach(worker.send, limits)

    def _crashed(self, reason: str) -> None:
        """Count a lost worker.

        :raises EngineCrashedError: it was one too many; the model is left alone for a while.
        """
        self._why = ""
        resumed, failed = self.requests.crash(reason)
        self._services.publish(
            events.WorkerCrashed(model=self.model, reason=reason, resumed=resumed, failed=failed)
        )
        if self._state is State.LOADING:
            self._lost_loads += 1
        self._state = State.LOADING
        if self._breaker.crashed(time.monotonic()) or self._lost_loads >= MAX_LOST_LOADS:
            self._breaker.trip(time.monotonic())
            raise errors.EngineCrashedError(f"the worker of {self.model} keeps crashing: {reason}")
