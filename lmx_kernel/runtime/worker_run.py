"""One worker of a model from its start to its exit: load, serve, and the watch over both."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any

from lmx_kernel import errors, events
from lmx_kernel.engine.protocol import EngineStats
from lmx_kernel.plugins.timeouts import in_thread
from lmx_kernel.runtime.process import WorkerProcess
from lmx_kernel.runtime.settings import ModelSettings
from lmx_kernel.runtime.silence import Silence
from lmx_kernel.types import EngineLimits, EngineSpec
from lmx_kernel.worker import messages as wire

PROGRESS_SHARE = 0.1  # of a load, between two events


class WorkerLostError(Exception):
    """The worker died or hung; the message says how.

    :ivar killed: LMX ended it, for its memory or its silence.
    """

    def __init__(self, reason: str, *, killed: bool = False) -> None:
        super().__init__(reason)
        self.killed = killed


class WorkerRun:
    """Runs one worker, once.

    :param spec: what it loads, with the memory that is reserved for it.
    :param settings: its timeouts.
    :param receive: takes the worker's messages about requests.
    :ivar stats: the engine's own figures, a second old at most while it works.
    :ivar loaded_share: how much of the load is done, 0..1.
    :ivar ready_at: since when the model is loaded, in monotonic seconds; None while it is not.
    :ivar load_s: how long the load took.
    :ivar observed_bytes: what the worker was last seen to take.
    :ivar first_observed_bytes: the same when it was ready.
    """

    def __init__(
        self,
        spec: EngineSpec,
        settings: ModelSettings,
        publish: Callable[[events.KernelEvent], None],
        receive: Callable[[wire.Message], None],
    ) -> None:
        self.spec = spec
        self.stats: EngineStats | None = None
        self.loaded_share = 0.0
        self.ready_at: float | None = None
        self.load_s = 0.0
        self.observed_bytes = 0
        self.first_observed_bytes = 0
        self._settings = settings
        self._publish = publish
        self._receive_other = receive
        self._process: WorkerProcess | None = None
        self._opened: asyncio.Future[EngineLimits] = asyncio.get_running_loop().create_future()
        self._doing = ""
        self._killed_for = ""
        self._longest_silence_s = 0.0

    @property
    def model(self) -> str:
        """The model's id in the catalogue."""
        return self.spec.card.id

    @property
    def pid(self) -> int | None:
        """The worker's process id."""
        return self._process.pid if self._process else None

    async def open(
        self, env: Callable[[EngineSpec], Mapping[str, str]], stop: asyncio.Future[str]
    ) -> EngineLimits | None:
        """Start the worker and load the model.

        :param env: the environment that the backend wants for it; called in a thread.
        :returns: None if ``stop`` was done before.
        :raises LmxError: the model cannot be loaded.
        :raises WorkerLostError: the worker died, or loads no further.
        """
        began = time.monotonic()
        variables = await in_thread(env, self.spec)
        self._process = await WorkerProcess.start(variables, self._receive)
        self.send(wire.Open(self.spec))
        await self._watch(self._opened, stop, self._settings.load_timeout_s)
        if not self._opened.done():
            return None
        limits = self._opened.result()
        self.ready_at, self.loaded_share, self._doing = time.monotonic(), 1.0, ""
        self.load_s = self.ready_at - began
        return limits

    async def serve(self, stop: asyncio.Future[str]) -> None:
        """Watch the worker until ``stop`` is done.

        :raises WorkerLostError: the worker died, or gave no sign of life.
        """
        await self._watch(stop, stop, self._settings.hang_timeout_s)

    async def close(self) -> None:
        """End the worker. Its memory is free on return."""
        process, self._process = self._process, None
        if process is not None:
            await process.close()

    def send(self, message: wire.Message, *, later: bool = False) -> None:
        """Send a message; dropped if there is no worker any more.

        :param later: as :meth:`WorkerProcess.send`.
        """
        if self._process is not None:
            self._process.send(message, later=later)

    def kill(self, reason: str) -> None:
        """End the worker at once, as if it had crashed for ``reason``."""
        if self._process is not None:
            self._killed_for = reason
            self._process.kill()

    def trim(self) -> None:
        """Let the worker give back what only serves later requests."""
        if self.ready_at is not None:
            self.send(wire.Trim())

    def observe(self, taken_bytes: int) -> None:
        """Note what the worker was seen to take; what is on its device may count elsewhere."""
        self.observed_bytes = max(taken_bytes, self.stats.memory_bytes if self.stats else 0)
        if self.ready_at is not None and not self.first_observed_bytes:
            self.first_observed_bytes = self.observed_bytes

    # --- inside ---

    def _receive(self, message: wire.Message) -> None:
        if isinstance(message, wire.Opened):
            self._opened.set_result(message.limits)
        elif isinstance(message, wire.LoadRefused):
            self._opened.set_exception(errors.from_code(message.code, message.message))
        elif isinstance(message, wire.Observed):
            self.stats = message.stats
        elif isinstance(message, wire.Loading):
            self._doing = message.doing
            self._note_share(message.share)
        else:
            self._receive_other(message)

    def _note_share(self, share: float) -> None:
        if share - self.loaded_share >= PROGRESS_SHARE:
            self.loaded_share = share
            self._publish(events.LoadProgressed(model=self.model, share=share))

    async def _watch(
        self, goal: asyncio.Future[Any], stop: asyncio.Future[str], timeout_s: float
    ) -> None:
        """Wait until ``goal`` or ``stop`` is done.

        :param timeout_s: how long the worker may show no sign of life; see :class:`Silence`.
        :raises WorkerLostError: the worker died, or is to be given up for its silence.
        """
        process = self._process
        assert process is not None
        silence = Silence(timeout_s, self.spec.card.size_bytes, self._longest_silence_s)
        reason = await process.watch({goal, stop}, silence)
        self._longest_silence_s = silence.longest_s
        if goal.done() or stop.done():
            return
        if reason:
            raise WorkerLostError(self._loss(reason), killed=True)
        if self._killed_for:
            raise WorkerLostError(self._killed_for, killed=True)
        raise WorkerLostError(self._loss(process.exited.result()))

    def _loss(self, end: str) -> str:
        """Return how the worker was lost, with what it was doing if it loads."""
        return f"{self._doing}: {end}" if self._doing else end
