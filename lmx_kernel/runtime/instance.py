"""One model's worker from load to unload: a single task walks it through its life."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from enum import StrEnum
from functools import partial
from typing import Any

import structlog
from attrs import frozen

from lmx_kernel import errors, events
from lmx_kernel.engine import EngineStats
from lmx_kernel.runtime.answer import Answer
from lmx_kernel.runtime.breaker import Breaker
from lmx_kernel.runtime.dispatcher import Dispatcher
from lmx_kernel.runtime.process import WorkerProcess
from lmx_kernel.runtime.settings import ModelSettings, QueueSettings
from lmx_kernel.types import EngineLimits, EngineSpec, GenerationRequest
from lmx_kernel.worker import messages as wire

TICKS = 10  # looks at a silent worker within one timeout
MAX_LOST_LOADS = 2
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
class Surroundings:
    """What an instance needs of the rest of the kernel.

    :param reserve: checks the model's files and holds its memory (in bytes) while the context is
        open; waits for room, and raises LmxError where there can be none.
    :param env: the environment that the backend wants for its worker; asked in a thread.
    """

    models: ModelSettings
    queue: QueueSettings
    reserve: Callable[[Instance], AbstractAsyncContextManager[int]]
    env: Callable[[EngineSpec], Mapping[str, str]]
    publish: Callable[[events.KernelEvent], None]


class Instance:
    """Loads one model when it is asked for, keeps its worker alive, and ends it.

    :ivar spec: what is loaded, and how.
    :ivar requests: the model's queue.
    :ivar memory_bytes: what is reserved for it.
    :ivar stats: the engine's own figures, a second old at most while it works.
    """

    def __init__(self, spec: EngineSpec, surroundings: Surroundings) -> None:
        self.spec = spec
        self.requests = Dispatcher(
            spec.card.id, surroundings.queue, surroundings.publish, self._begin
        )
        self.memory_bytes = 0
        self.stats: EngineStats | None = None
        self._around = surroundings
        self._state = State.ABSENT
        self._breaker = Breaker()
        self._lost_loads = 0
        self._worker: WorkerProcess | None = None
        self._task: asyncio.Task[None] | None = None
        self._stop: asyncio.Future[None] = asyncio.get_running_loop().create_future()

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

    def submit(self, request: GenerationRequest) -> Answer:
        """Queue a request; loads the model if need be.

        :raises QueueFullError: too many wait already.
        :raises UnavailableError: the model cools down after crashes.
        """
        cooling_s = self._breaker.cooling_s(time.monotonic())
        if cooling_s:
            raise errors.UnavailableError(
                f"the worker of {self.spec.card.id} crashed repeatedly; it is left alone for "
                f"{cooling_s:.0f} more seconds",
                retry_after_s=int(cooling_s) + 1,
            )
        return self.requests.submit(request)

    async def yield_memory(self) -> None:
        """Finish what was asked so far, then unload. Requests that come meanwhile wait."""
        if self._task is not None:
            self._state = State.DRAINING
            self.requests.end_turn()
            quiet = asyncio.ensure_future(self.requests.quiet.wait())
            await asyncio.wait({quiet, self._task}, return_when=asyncio.FIRST_COMPLETED)
            quiet.cancel()
            await self._end()

    async def unload(self, error: errors.LmxError) -> None:
        """Unload now; requests in flight get ``error``."""
        self.requests.fail_all(error)
        await self._end()

    # --- life ---

    def _begin(self) -> None:
        if self._task is None:
            self._stop = asyncio.get_running_loop().create_future()
            self._task = asyncio.ensure_future(self._live())

    async def _end(self) -> None:
        if not self._stop.done():
            self._stop.set_result(None)
        if self._task is not None:
            await asyncio.wait({self._task})

    async def _live(self) -> None:
        """From the wish for a worker until it was stopped, or cannot be had."""
        try:
            self._state = State.LOADING
            async with self._around.reserve(self) as self.memory_bytes:
                await self._keep_worker()
        except errors.LmxError as error:
            self._give_up(error)
        # A plugin's backend may fail in any way, and the system may refuse a process; whoever
        # waits here must hear of it.
        except Exception as error:
            log.exception("load_failed", model=self.spec.card.id)
            self._give_up(errors.InternalError(f"{self.spec.card.id} cannot be loaded: {error!r}"))
        finally:
            self._state, self.memory_bytes, self._task = State.ABSENT, 0, None
            self.requests.reopen()
        if self.requests.waiting:
            self._begin()

    def _give_up(self, error: errors.LmxError) -> None:
        self._around.publish(
            events.LoadFailed(model=self.spec.card.id, code=error.code, message=error.message)
        )
        self.requests.fail_all(error)

    async def _keep_worker(self) -> None:
        while not self._stop.done():
            try:
                await self._run_worker()
            except WorkerLostError as lost:
                self._crashed(str(lost))

    async def _run_worker(self) -> None:
        opened: asyncio.Future[EngineLimits] = asyncio.get_running_loop().create_future()
        began = time.monotonic()
        env = await asyncio.to_thread(self._around.env, self.spec)
        worker = await WorkerProcess.start(env, partial(self._receive, opened))
        try:
            worker.send(wire.Open(self.spec))
            await self._watch(worker, opened, self._around.models.load_timeout_s)
            if opened.done():
                self._ready(worker, opened.result(), time.monotonic() - began)
                await self._watch(worker, self._stop, self._around.models.hang_timeout_s)
                self.requests.detach()
                self._around.publish(events.ModelUnloaded(model=self.spec.card.id))
        finally:
            self._worker = self.stats = None
            await worker.close()

    def _receive(self, opened: asyncio.Future[EngineLimits], message: wire.Message) -> None:
        if isinstance(message, wire.Opened):
            opened.set_result(message.limits)
        elif isinstance(message, wire.LoadRefused):
            opened.set_exception(errors.from_code(message.code, message.message))
        elif isinstance(message, wire.Observed):
            self.stats = message.stats
        else:
            self.requests.receive(message)

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
                raise WorkerLostError(f"{worker.exited.result()} {worker.last_words}".strip())
            silent = 0 if worker.frames != frames else silent + 1
            frames = worker.frames
            if silent >= TICKS // 2:
                worker.send(wire.Ping())
        raise WorkerLostError(f"no sign of life for {timeout_s:g} seconds")

    def _ready(self, worker: WorkerProcess, limits: EngineLimits, load_s: float) -> None:
        self._state, self._worker, self._lost_loads = State.READY, worker, 0
        self._around.publish(
            events.ModelLoaded(
                model=self.spec.card.id,
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
        resumed, failed = self.requests.crash(reason)
        self._around.publish(
            events.WorkerCrashed(
                model=self.spec.card.id, reason=reason, resumed=resumed, failed=failed
            )
        )
        if self._state is State.LOADING:
            self._lost_loads += 1
        self._state = State.LOADING
        if self._breaker.crashed(time.monotonic()) or self._lost_loads >= MAX_LOST_LOADS:
            self._breaker.trip(time.monotonic())
            raise errors.EngineCrashedError(
                f"the worker of {self.spec.card.id} keeps crashing: {reason}"
            )
