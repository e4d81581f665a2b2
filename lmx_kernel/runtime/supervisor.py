"""Keeps a worker running for a model: starts another one after a crash."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping

from lmx_kernel import errors, events
from lmx_kernel.config import Settings
from lmx_kernel.runtime.breaker import Breaker
from lmx_kernel.runtime.dispatcher import Dispatcher
from lmx_kernel.runtime.settings import ModelSettings
from lmx_kernel.runtime.worker_run import WorkerLostError, WorkerRun
from lmx_kernel.types import EngineLimits, EngineSpec


class Supervisor:
    """Runs one worker after the other, and a model's requests on them.

    :param env: the environment that the backend wants for its worker; called in a thread.
    :ivar run: the worker that there is now.
    :ivar breaker: counts crashes, over all loads of the model.
    """

    def __init__(
        self,
        requests: Dispatcher,
        settings: Settings,
        publish: Callable[[events.KernelEvent], None],
        env: Callable[[EngineSpec], Mapping[str, str]],
    ) -> None:
        self.run: WorkerRun | None = None
        self.breaker = Breaker()
        self._requests = requests
        self._settings = settings
        self._publish = publish
        self._env = env

    @property
    def ready_at(self) -> float | None:
        """Since when the model is loaded, in monotonic seconds; None while it is not."""
        return self.run.ready_at if self.run else None

    async def keep_worker(
        self, spec: EngineSpec, stop: asyncio.Future[str], on_ready: Callable[[], None]
    ) -> None:
        """Keep a worker until ``stop`` is done, with the reason for the unload.

        :param spec: with the memory that is reserved.
        :param on_ready: called whenever a worker has loaded the model.
        :raises EngineCrashedError: it crashes too often; the breaker is open.
        :raises LmxError: the model cannot be loaded.
        """
        while not stop.done():
            settings = self._settings.get(ModelSettings)
            run = WorkerRun(spec, settings, self._publish, self._requests.receive)
            try:
                await self._run_worker(run, stop, on_ready)
            except WorkerLostError as lost:
                self._crashed(run, lost)

    async def _run_worker(
        self, run: WorkerRun, stop: asyncio.Future[str], on_ready: Callable[[], None]
    ) -> None:
        self.run = run
        try:
            limits = await run.open(self._env, stop)
            if limits is not None:
                self._ready(run, limits, on_ready)
                await run.serve(stop)
                self._requests.detach()
                self._publish(events.ModelUnloaded(model=run.model, reason=stop.result()))
        finally:
            self.run = None
            await run.close()

    def _ready(self, run: WorkerRun, limits: EngineLimits, on_ready: Callable[[], None]) -> None:
        self.breaker.loaded()
        on_ready()
        self._publish(
            events.ModelLoaded(
                model=run.model,
                pid=run.pid or 0,
                load_s=run.load_s,
                memory_bytes=run.spec.memory_bytes,
            )
        )
        self._requests.attach(run.send, limits)

    def _crashed(self, run: WorkerRun, lost: WorkerLostError) -> None:
        reason = str(lost)
        verdict = self._requests.crash(reason, killed=lost.killed)
        failed = int(verdict.doomed is not None)
        self._publish(
            events.WorkerCrashed(
                model=run.model, reason=reason, resumed=verdict.in_flight - failed, failed=failed
            )
        )
        if self.breaker.crashed(
            time.monotonic(),
            while_loading=run.ready_at is None,
            has_worked=verdict.has_worked,
            explained=verdict.explained,
        ):
            raise errors.EngineCrashedError(f"the worker of {run.model} keeps crashing: {reason}")
