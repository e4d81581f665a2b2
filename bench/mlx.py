"""The MLX backend through the whole server, against `mlx_lm.server` on the same folder.

usage: python bench/mlx.py [FOLDER]      (default: the demo model, converted to float32)
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from common import Client, Stream, chat, head, median, row, timed_stream
from lmx_mlx_backend.blas import blas_env

from lmx_kernel.testing.harness import running_daemon

HOME = Path(os.environ.get("LMX_HOME") or "~/.lmx").expanduser()
GGUF = HOME / "models/smollm2-135m-instruct/SmolLM2-135M-Instruct.Q4_1.gguf"
STORY = "Tell me a long story about a lighthouse keeper and the sea. "
TOKENS = 128
PEER_PORT = 12390
SAMPLERS = [
    {"temperature": 0.5 + 0.1 * n, "top_p": 0.99 - 0.02 * n, "top_k": 20 + 5 * n} for n in range(8)
]


class Server:
    """A server under test: where it is, and what it calls the model."""

    def __init__(self, name: str, url: str, model: str) -> None:
        self.name, self.url, self.model = name, url, model

    async def stream(self, text: str, tokens: int, **fields: object) -> Stream:
        fields = {"temperature": 0, "logit_bias": {"2": -100}} | fields
        return await timed_stream(self.url, chat(self.model, text, tokens, **fields))

    async def together(self, count: int, tokens: int, **fields: object) -> float:
        """Return the tokens/s of ``count`` streams at once."""
        asks = (self.stream(f"{n} {STORY}", tokens, **fields) for n in range(count))
        return rate(await asyncio.gather(*asks))

    async def one_token(self) -> float:
        """Return the median time of a request for one token, in seconds."""
        times = []
        for _ in range(40):
            began, client = time.perf_counter(), Client(self.url)
            await client.post("/v1/chat/completions", chat(self.model, "hi", 1, temperature=0))
            times.append(time.perf_counter() - began)
            client.close()
        return median(times[5:])

    async def prefix(self) -> float:
        """Return the median first token of later requests with a shared 1,200-token prefix."""
        shared = " ".join(f"item {n % 90} is here." for n in range(175))
        asks = [f"{shared} What do you think of number {n}?" for n in range(6)]
        return median([(await self.stream(ask, 4)).first_s for ask in asks][1:])


def rate(streams: list[Stream]) -> float:
    """Return tokens/s over all streams, from the asking to the last token."""
    return sum(len(stream.times) for stream in streams) / max(one.times[-1] for one in streams)


@asynccontextmanager
async def ours(folder: Path) -> AsyncIterator[Server]:
    with tempfile.TemporaryDirectory() as name:
        config = Path(name) / "config.toml"
        config.write_text(
            f'[model_folders]\nhome = false\npaths = ["{folder.parent}"]\n[models]\nparallel = 8\n'
        )
        async with running_daemon(config) as daemon:
            yield Server("LMX", daemon.url, folder.name)


@asynccontextmanager
async def peer(folder: Path) -> AsyncIterator[Server]:
    """Run `mlx_lm.server` with the same matrix library in front."""
    arguments = ["--model", str(folder), "--port", str(PEER_PORT), "--log-level", "ERROR"]
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "mlx_lm", "server", *arguments],  # -P: this file is named mlx
        env={**os.environ, **blas_env(0)},
        stderr=subprocess.DEVNULL,
    )
    try:
        server = Server("mlx_lm.server", f"http://127.0.0.1:{PEER_PORT}", "default_model")
        while True:
            try:
                await Client(server.url).get("/health")
                break
            except OSError:
                if process.poll() is not None:
                    raise SystemExit("mlx_lm.server did not start") from None
                await asyncio.sleep(0.2)
        yield server
    finally:
        process.kill()
        process.wait()


async def measure(server: Server) -> dict[str, float]:
    await server.stream("warm", 4)
    return {
        "one": await server.together(1, TOKENS),
        "eight": await server.together(8, TOKENS),
        "token": await server.one_token(),
        "prefix": await server.prefix(),
    }


async def only_ours(server: Server) -> None:
    equal = await server.together(8, TOKENS, **SAMPLERS[3])
    asks = (server.stream(f"{n} {STORY}", TOKENS, **sampler) for n, sampler in enumerate(SAMPLERS))
    differing = rate(await asyncio.gather(*asks))
    row("8 equal samplers", f"{equal:.0f} tokens/s")
    row("8 differing ones", f"{differing:.0f} tokens/s = {differing / equal:.2f} x", ">= 0.9 x")
    many = await asyncio.gather(*(server.stream(f"{n} {STORY}", 8) for n in range(64)))
    answered = sum(bool(one.times) and not one.error for one in many)
    row("64 at once", f"{answered} answered", "all")


async def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(sys.argv[1]) if sys.argv[1:] else Path(name) / "models" / "smollm2"
        if not folder.exists():
            folder.parent.mkdir(parents=True)
            convert = [
                "convert",
                str(GGUF),
                "--output",
                str(folder),
                "--dtype",
                "float32",
                "--dequantize",
            ]
            subprocess.run([sys.executable, "-m", "lmx_kernel", *convert], check=True)
        async with peer(folder) as server:
            theirs = await measure(server)
        head("MLX on this CPU (SmolLM2-135M, float32), `mlx_lm.server` beside it")
        async with ours(folder) as server:
            mine = await measure(server)
            for key, what, unit, goal in (
                ("one", "one stream", "tokens/s", ">= 1.0 x"),
                ("eight", "8 streams", "tokens/s", ">= 1.2 x"),
                ("token", "1-token request, p50", "s", "<= 0.7 x"),
                ("prefix", "later first token, shared prefix", "s", "<= 0.5 x"),
            ):
                ratio = mine[key] / theirs[key]
                text = f"{mine[key]:.3g} {unit} = {ratio:.2f} x {theirs[key]:.3g}"
                row(what, text, goal)
            await only_ours(server)


if __name__ == "__main__":
    asyncio.run(main())
