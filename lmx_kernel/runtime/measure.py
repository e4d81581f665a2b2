"""The exact memory that a load would take, measured by a worker process that loads nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from lmx_kernel.runtime.process import WorkerProcess
from lmx_kernel.runtime.silence import Silence
from lmx_kernel.types import EngineSpec
from lmx_kernel.worker import messages as wire

TIMEOUT_S = 60.0


async def measure_memory(spec: EngineSpec, env: Mapping[str, str]) -> int | None:
    """Return the bytes that opening ``spec`` takes, or None if the backend cannot measure it, or
    shows no sign of life.
    """
    measured: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()

    def receive(message: wire.Message) -> None:
        if isinstance(message, wire.Measured):
            measured.set_result(message.memory_bytes)

    worker = await WorkerProcess.start(env, receive)
    try:
        worker.send(wire.Measure(spec))
        await worker.watch({measured}, Silence(TIMEOUT_S, spec.card.size_bytes))
        return measured.result() if measured.done() else None
    finally:
        worker.kill()
        await worker.close()
