"""A worker process by itself."""

from __future__ import annotations

import asyncio
import socket
import sys

from lmx_kernel.testing.fake import FakeBackend, FakeSource
from lmx_kernel.testing.fake_model import FakeModel
from lmx_kernel.testing.harness import write_fake_models
from lmx_kernel.types import EngineSpec, LoadOptions
from lmx_kernel.worker import messages as wire


async def test_a_worker_whose_kernel_ended_before_it_began_loads_nothing(tmp_path):
    write_fake_models(tmp_path, {"m": FakeModel(load_hang=True)})
    [location] = FakeSource(tmp_path).locations()
    [card] = FakeBackend().identify(location)
    options = LoadOptions(context_length=64, parallel=1, cache_tokens=64)
    spec = EngineSpec(
        card=card, options=options, settings={}, engine_module=FakeBackend.engine_module
    )
    ours, theirs = socket.socketpair()
    with theirs:
        with ours:
            ours.sendall(wire.encode(wire.Open(spec)))
        worker = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "lmx_kernel.worker"), stdin=theirs.fileno()
        )
    assert await worker.wait() == 0
    assert not list(tmp_path.glob("*.tally"))  # the fake model's load did not begin
