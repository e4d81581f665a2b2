"""Real workers under a kernel: what their death costs, and who is named when code never returns."""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from lmx_kernel.errors import LmxError
from lmx_kernel.events import WorkerCrashed
from lmx_kernel.testing.harness import RunningKernel, running_kernel
from lmx_kernel.types import GenerationRequest, SamplingRequest, TextDelta, TokenPrompt

PLUGINS = ("lmx_mlx_backend.backend", "lmx_model_folders.plugin")
NO_END = {1: -100.0}
COUNT = 120
SAMPLINGS = [
    SamplingRequest(temperature=0, logit_bias=NO_END),
    SamplingRequest(temperature=0.9, seed=5, logit_bias=NO_END),
    SamplingRequest(temperature=0.9, seed=6, presence_penalty=1.5, logit_bias=NO_END),
    SamplingRequest(temperature=1.2, seed=7, top_k=0, logit_bias=NO_END),
]


@asynccontextmanager
async def kernel_with(folder: Path, home: Path) -> AsyncIterator[RunningKernel]:
    """Hold a kernel open that serves the model in ``folder``."""
    config = (
        "[model_folders]\nhome = false\nhugging_face = false\nlm_studio = false\n"
        f'paths = ["{folder.parent}"]\n[mlx]\ndevice = "cpu"\n'
    )
    async with running_kernel(home, {}, config, PLUGINS) as stage:
        yield stage


async def tokens_of(
    stage: RunningKernel, model: str, number: int, on_token: Callable[[], None] = lambda: None
) -> list[int]:
    """Return the tokens of an answer to prompt ``number``, sampled as that one is."""
    dice = random.Random(number)
    request = GenerationRequest(
        model=model,
        prompt=TokenPrompt(tuple(dice.randrange(2, 250) for _ in range(10 + 15 * number))),
        sampling=SAMPLINGS[number],
        max_tokens=COUNT,
    )
    tokens: list[int] = []
    with await stage.kernel.generate(request) as answer:
        async for event in answer:
            if isinstance(event, TextDelta):
                tokens += event.tokens
                on_token()
    return tokens


async def test_streams_go_on_undisturbed_when_their_worker_is_killed(models, tmp_path) -> None:
    folder = models("llama")
    async with kernel_with(folder, tmp_path) as stage:
        ask = asyncio.gather(*(tokens_of(stage, folder.name, n) for n in range(4)))
        expected = await ask
        assert [len(tokens) for tokens in expected] == [COUNT] * 4
        pid, seen = stage.instance(folder.name).pid, []
        assert pid is not None

        def kill() -> None:
            seen.append(stage.instance(folder.name).pid)
            if len(seen) == COUNT:  # of all four together, so each is in its midst
                os.kill(pid, signal.SIGKILL)

        ask = asyncio.gather(*(tokens_of(stage, folder.name, n, kill) for n in range(4)))
        assert await ask == expected
        [crash] = stage.seen(WorkerCrashed)
        assert (crash.resumed, crash.failed) == (4, 0)
        assert stage.instance(folder.name).pid != pid


STUCK = """
import ctypes, signal, time
from lmx_mlx_backend import deadline, model
from mlx_lm.models.llama import Model as Llama, ModelArgs

model.PATIENCE_S, deadline.GRACE_S = 3.0, 0.1  # building it takes less on a busy machine

class Model(Llama):
    def __call__(self, *args, **more):
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])
        {how}  # as deaf as native code
"""


@pytest.mark.parametrize("how", ["time.sleep(3600)", "ctypes.PyDLL(None).sleep(3600)"])
async def test_a_plugin_that_is_stuck_in_native_code_is_named_and_disturbs_nobody(
    models, tmp_path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    folder, site = tmp_path / "models" / "stuck", tmp_path / "site"
    shutil.copytree(models("llama"), folder)
    shutil.copytree(models("llama"), folder.parent / "sound")
    config = json.loads((folder / "config.json").read_text()) | {"model_type": "stuck"}
    (folder / "config.json").write_text(json.dumps(config))
    install(site, STUCK.replace("{how}", how))
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("PYTHONPATH", str(site))
    async with kernel_with(folder, tmp_path) as stage:
        other = asyncio.ensure_future(tokens_of(stage, "sound", 0))
        with pytest.raises(LmxError) as caught:
            await tokens_of(stage, "stuck", 0)
        assert "plugin lmx-stuck: computing a few tokens: exited" in caught.value.message
        assert len(await other) == COUNT
        held_bytes = {one.id: one.memory_bytes for one in stage.kernel.status().models}
        assert held_bytes["stuck"] == 0 < held_bytes["sound"]


def install(site: Path, source: str) -> None:
    """Put a package in place that adds the architecture `stuck`."""
    info = site / "lmx_stuck-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lmx-stuck\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[lmx.mlx.architectures]\nstuck = stuck_module\n")
    (site / "stuck_module.py").write_text(source)
