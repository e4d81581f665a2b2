"""What managing models costs: status, scans, turns and storms, on fake models.

usage: python bench/lifecycle.py
"""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from pathlib import Path

from common import Client, chat, head, median, row, timed_stream
from lmx_gguf_backend.backend import GgufBackend
from lmx_mlx_backend.backend import MlxBackend
from lmx_model_folders.sources import FolderSource

from lmx_kernel.events import ModelLoaded
from lmx_kernel.models.catalogue import Catalogue
from lmx_kernel.testing.fake_model import FakeModel
from lmx_kernel.testing.harness import (
    ask,
    running_daemon,
    running_kernel,
    write_config,
    write_fake_models,
)

ADMIN = ("lmx_openai_api.plugin", "lmx_admin_api.plugin")
STATUSES = 500
FOLDERS = 1000


async def main() -> None:
    head("Lifecycle (fake backend)")
    with tempfile.TemporaryDirectory() as name:
        await status(Path(name))
    with tempfile.TemporaryDirectory() as name:
        scan(Path(name))
    for experiment in (storm, alternate):
        with tempfile.TemporaryDirectory() as name:
            await experiment(Path(name))


async def status(folder: Path) -> None:
    names = [f"m{number}" for number in range(10)]
    write_fake_models(folder, dict.fromkeys(names, FakeModel(tokens_per_s=50)))
    async with running_daemon(write_config(folder, ADMIN)) as daemon:
        streams = [
            asyncio.ensure_future(timed_stream(daemon.url, chat(name, "hi", 600)))
            for name in names[:8]
        ]
        client, times = Client(daemon.url), []
        await asyncio.sleep(2)
        for _ in range(STATUSES):
            began = time.perf_counter()
            answer = await client.get("/admin/status")
            times.append(time.perf_counter() - began)
        assert sum(model["running"] for model in json.loads(answer)["models"]) == 8
        for stream in streams:
            stream.cancel()
    row("/admin/status, 8 streams, p50", f"{median(times) * 1000:.2f} ms", "< 5 ms")


def scan(folder: Path) -> None:
    for number in range(FOLDERS):
        place = folder / f"org{number % 20}" / f"model-{number}"
        place.mkdir(parents=True)
        config = {"model_type": "llama", "num_hidden_layers": 1, "vocab_size": 8}
        (place / "config.json").write_text(json.dumps(config))
        (place / "tokenizer.json").write_text("{}")
        header = json.dumps({"t": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
        weights = len(header).to_bytes(8, "little") + header + bytes(4)
        (place / "model.safetensors").write_bytes(weights)
    source, backends = FolderSource("bench", (folder,)), [GgufBackend(), MlxBackend()]
    catalogue = Catalogue(lambda: [source], lambda: backends)
    cold, *warm = (_timed(catalogue.scan) for _ in range(6))
    assert len(catalogue.cards) == FOLDERS
    row(f"scan of {FOLDERS} model folders, cold", f"{cold:.2f} s", "< 1 s")
    row("scan again, nothing changed", f"{median(warm) * 1000:.0f} ms", "< 50 ms")


async def storm(folder: Path) -> None:
    async with running_kernel(folder, {"m": FakeModel(load_s=0.5)}) as stage:
        await asyncio.gather(*(_answer(stage.kernel, "m") for _ in range(64)))
        row("loads for a storm of 64 on a cold model", str(len(stage.seen(ModelLoaded))), "1")


async def alternate(folder: Path) -> None:
    script = FakeModel(memory_bytes=1000, load_s=0.3, tokens_per_s=200)
    config = "[memory]\nbudget_bytes = 1300"
    async with running_kernel(folder, dict.fromkeys("ab", script), config) as stage:
        waits = await asyncio.gather(_bot(stage.kernel, "a", 20), _bot(stage.kernel, "b", 20))
        loads = len(stage.seen(ModelLoaded))
        swap_s = 0.3 + 0.5 + 0.2  # load, grace, start of a worker
    row("swaps for 40 requests, two models in turn", str(loads - 1), "<= 6")
    longest = max(max(wait) for wait in waits)
    row("longest wait", f"{longest:.1f} s = {longest / swap_s:.1f} swaps", "<= 3 swaps")


async def _bot(kernel: object, model: str, requests: int) -> list[float]:
    return [await _timed_answer(kernel, model) for _ in range(requests)]


async def _timed_answer(kernel: object, model: str) -> float:
    began = time.perf_counter()
    await _answer(kernel, model)
    return time.perf_counter() - began


async def _answer(kernel: object, model: str) -> None:
    with await kernel.generate(ask(model, max_tokens=5)) as answer:  # type: ignore[attr-defined]
        async for _ in answer:
            pass


def _timed(do: object) -> float:
    began = time.perf_counter()
    do()  # type: ignore[operator]
    return time.perf_counter() - began


if __name__ == "__main__":
    asyncio.run(main())
