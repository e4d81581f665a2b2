"""What model files that are made to hurt do to a daemon that lists them.

usage: python bench/hostile_files.py
"""

from __future__ import annotations

import asyncio
import json
import struct
import sys
import tempfile
from asyncio.subprocess import PIPE
from pathlib import Path

import psutil
from common import Client, head, row

from lmx_kernel.testing.harness import running_daemon

MIB = 1 << 20
CONFIG = {"model_type": "llama", "hidden_size": 64, "num_hidden_layers": 1}
ENTRY = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
SETTLE_S = 3.0


def large_config(folder: Path) -> None:
    keys = {f"key{n}": "x" * 1000 for n in range(64 * 1024)}
    (folder / "config.json").write_text(json.dumps(CONFIG | keys))


def deep_config(folder: Path) -> None:
    (folder / "config.json").write_text('{"a":' * (MIB // 8))


def large_template(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps(CONFIG))
    with (folder / "chat_template.jinja").open("wb") as file:
        file.truncate(600 * MIB)


def large_header(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps(CONFIG))
    write_weights(folder, {f"tensor{n}": ENTRY for n in range(1_350_000)})


def write_weights(folder: Path, tensors: dict[str, object]) -> None:
    header = json.dumps(tensors).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))


def large_metadata(folder: Path) -> None:
    def text(value: bytes) -> bytes:
        return struct.pack("<Q", len(value)) + value

    words = 130 * MIB // 40
    array = struct.pack("<IQ", 8, words) + text(b"x" * 32) * words
    pairs = text(b"general.architecture") + struct.pack("<I", 8) + text(b"llama")
    pairs += text(b"tokenizer.ggml.tokens") + struct.pack("<I", 9) + array
    (folder / "model.gguf").write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 2) + pairs)


FILES = (large_config, deep_config, large_template, large_header, large_metadata)


async def main() -> None:
    head("Hostile model files (a real daemon, all plugins)")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        models = folder / "models"
        models.mkdir()
        config = folder / "config.toml"
        config.write_text(f'[model_folders]\npaths = ["{models}"]\n')
        async with running_daemon(config) as daemon:
            for write in FILES:
                await measure(daemon, write.__name__, models, write)


async def measure(daemon, name, models, write) -> None:  # type: ignore[no-untyped-def]
    staged = models.parent / f".{name}"
    staged.mkdir()
    if write is not large_metadata:
        write_weights(staged, {"weight": ENTRY})
        (staged / "tokenizer.json").write_text("{}")
    write(staged)
    process, client = psutil.Process(daemon.process.pid), Client(daemon.url)
    before = process.memory_info().rss
    probe = await asyncio.create_subprocess_exec(
        sys.executable,
        str(Path(__file__).with_name("probe.py")),
        daemon.url,
        stdin=PIPE,
        stdout=PIPE,
    )
    staged.rename(models / f"publisher-{name}")
    found = json.loads(await client.post("/admin/models/rescan", {}))
    await asyncio.sleep(SETTLE_S)
    health, _ = await probe.communicate(b"")
    grown = (process.memory_info().rss - before) / 1e6
    problems = [one.get("problem") for one in found["models"] if name in one["id"]]
    row(f"{name}: /health p99", f"{float(health):.1f} ms", "< 50 ms")
    row(f"{name}: memory of the daemon", f"{grown:+.1f} MB", "<= +20 MB")
    row(f"{name}: listed with its problem", str(problems)[:120].replace("|", "/"))


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
