"""LMX beside `llama-server` and `mlx_lm.server`: same model, same machine, one run, taking turns.

usage: python bench/peers.py build              compiles the `llama-server` to compare with
       python bench/peers.py [gguf] [mlx] [w1 ... w6] [--rounds N] [--threads N] [--tokens N]

By default everything is compared, in 3 rounds of answers of 128 tokens and a thread for each core.
On a machine that others use too, one thread and the CPU times say more than the clock. All servers
compute with the same libraries: `llama-server` is linked to those that LMX loads, `mlx_lm.server`
gets the matrix library that LMX preloads for its worker, and the same float32 weights. LMX proposes
no drafts here. The best round of each server counts.
"""

from __future__ import annotations

import asyncio
import math
import os
import socket
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser, Namespace
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import llama_server
import psutil
from attrs import field, frozen
from common import Client, Stream, chat, head, median, row, timed_stream
from engines import GGUF, HOME, float32_model
from lmx_mlx_backend.blas import blas_env

from lmx_kernel.engine.cores import usable_cores
from lmx_kernel.testing.harness import running_daemon

STORY = "Tell me a long story about a lighthouse keeper and the sea. "
ENDLESS = {"temperature": 0, "logit_bias": {"2": -100}, "stream_options": {"include_usage": True}}
SLOTS, CONTEXT, CELLS = 8, 8192, 32768


@frozen
class Server:
    """A server under test: where it is, and what it calls the model."""

    name: str
    url: str
    model: str
    process_id: int

    @property
    def cpu_s(self) -> float:
        """CPU time that its processes took so far."""
        parent = psutil.Process(self.process_id)
        times = [one.cpu_times() for one in (parent, *parent.children(recursive=True))]
        return sum(one.user + one.system for one in times)

    async def stream(self, text: str, tokens: int, **fields: object) -> Stream:
        return await timed_stream(self.url, chat(self.model, text, tokens, **(ENDLESS | fields)))

    async def together(self, count: int, tokens: int) -> list[Stream]:
        return await asyncio.gather(
            *(self.stream(f"{n} {STORY}", tokens) for n in range(count)),
        )

    async def until_ready(self, process: subprocess.Popen[bytes]) -> None:
        """Wait until the model is loaded."""
        while True:
            try:
                if b'"ok"' in await Client(self.url).get("/health"):
                    return
            except OSError:
                if process.poll() is not None:
                    raise SystemExit(f"{self.name} did not start") from None
            await asyncio.sleep(0.2)


@frozen
class Figure:
    """What is compared.

    :param goals: of LMX's figure as a share of the peer's, by the peer's name.
    """

    key: str
    what: str
    unit: str = "s"
    goals: Mapping[str, str] = field(factory=dict)

    def best(self, values: list[float]) -> float:
        return max(values) if self.unit == "tokens/s" else min(values)


LLAMA, MLX = "llama-server", "mlx_lm.server"
FIGURES = (
    Figure("w1", "one stream", "tokens/s", {LLAMA: ">= 1.0 x", MLX: ">= 1.15 x"}),
    Figure("w2", "8 streams", "tokens/s", {LLAMA: ">= 1.1 x", MLX: ">= 1.2 x"}),
    Figure("w3 first", "1,200-token prefix, first token of the first", goals={LLAMA: "<= 1.03 x"}),
    Figure("w3 rest", "the same of later ones, p50", goals={LLAMA: "<= 0.7 x", MLX: "<= 0.5 x"}),
    Figure("w4", "1-token request, p50", goals={LLAMA: "<= 0.9 x", MLX: "<= 0.5 x"}),
    Figure("w5", "64 at once", "tokens/s", {LLAMA: ">= 1.1 x"}),
    Figure("w5 lost", "of them not answered", "requests", {LLAMA: "0", MLX: "0"}),
    Figure("w6 alone", "4,000-token prompt alone, first token", goals={LLAMA: "<= 1.03 x"}),
    Figure("w6 beside", "the same beside 4 streams"),
    Figure("w6 streams", "these 4 meanwhile", "tokens/s"),
)
SUFFIX = " cpu"
"""Of the key of a work's CPU time."""

Work = Callable[[Server, int, int], Awaitable[dict[str, float]]]


def rate(streams: list[Stream]) -> float:
    """Return tokens/s over all streams, from the asking to the last token."""
    last_s = max((one.times[-1] for one in streams if one.times), default=math.inf)
    return sum(one.produced for one in streams) / last_s


def long_text(tokens: int, salt: str) -> str:
    """Return text of about ``tokens`` tokens; another salt shares no prefix."""
    return f"{salt} " + " ".join(f"item {n % 90} is here." for n in range(int(tokens / 6.9)))


async def one_stream(server: Server, turn: int, tokens: int) -> dict[str, float]:
    return {"w1": rate([await server.stream(f"{turn} {STORY}", tokens)])}


async def eight_streams(server: Server, turn: int, tokens: int) -> dict[str, float]:
    return {"w2": rate(await server.together(8, tokens))}


async def shared_prefix(server: Server, turn: int, tokens: int) -> dict[str, float]:
    shared = long_text(1200, f"Shared {turn}")
    asks = [f"{shared} What do you think of number {n}?" for n in range(6)]
    first, *rest = [(await server.stream(ask, 4)).first_s for ask in asks]
    return {"w3 first": first, "w3 rest": median(rest)}


async def one_token(server: Server, turn: int, tokens: int) -> dict[str, float]:
    times = []
    for _ in range(20):
        began, client = time.perf_counter(), Client(server.url)
        await client.post("/v1/chat/completions", chat(server.model, "hi", 1, temperature=0))
        times.append(time.perf_counter() - began)
        client.close()
    return {"w4": median(times[2:])}


async def many(server: Server, turn: int, tokens: int) -> dict[str, float]:
    streams = await server.together(64, tokens // 4)
    lost = sum(not one.times or bool(one.error) for one in streams)
    return {"w5": rate(streams), "w5 lost": lost}


async def long_prompt(server: Server, turn: int, tokens: int) -> dict[str, float]:
    alone = await server.stream(long_text(4000, f"Alone {turn}"), 2)
    streams = [asyncio.create_task(server.stream(f"{n} {STORY}", 4 * tokens)) for n in range(4)]
    await asyncio.sleep(2)
    began = time.perf_counter()
    beside = await server.stream(long_text(4000, f"Beside {turn}"), 2)
    took_s = time.perf_counter() - began
    finished = [one for one in await asyncio.gather(*streams) if one.times]
    meanwhile = sum(2 <= at <= 2 + took_s for one in finished for at in one.times)
    return {
        "w6 alone": alone.first_s,
        "w6 beside": beside.first_s,
        "w6 streams": meanwhile / took_s,
    }


WORKS: dict[str, Work] = {
    "w1": one_stream,
    "w2": eight_streams,
    "w3": shared_prefix,
    "w4": one_token,
    "w5": many,
    "w6": long_prompt,
}


# --- servers


@asynccontextmanager
async def lmx(folder: Path, threads: int) -> AsyncIterator[Server]:
    """Run LMX on the only model below ``folder``."""
    model = next(folder.iterdir()).name
    with tempfile.TemporaryDirectory() as home:
        config = Path(home) / "config.toml"
        config.write_text(
            f'[model_folders]\nhome = false\npaths = ["{folder}"]\n'
            f"[models]\nparallel = {SLOTS}\ncontext_length = {CONTEXT}\ncache_tokens = {CELLS}\n"
            f'[[model]]\nmatch = "{model}"\ndrafts = []\n'
            f"[gguf]\nthreads = {threads}\n[mlx]\nthreads = {threads}\n"
        )
        async with running_daemon(config) as daemon:
            yield Server("LMX", daemon.url, model, daemon.process.pid)


@asynccontextmanager
async def peer(name: str, command: list[str], env: Mapping[str, str]) -> AsyncIterator[Server]:
    """Run another server."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [*command, "--port", str(port)],
        env={**os.environ, **env},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        server = Server(name, f"http://127.0.0.1:{port}", "default_model", process.pid)
        await server.until_ready(process)
        yield server
    finally:
        process.kill()
        process.wait()


@asynccontextmanager
async def gguf_pair(threads: int) -> AsyncIterator[tuple[Server, Server]]:
    """Run LMX and `llama-server` on the demo model."""
    program = llama_server.binary()
    if not program.exists():
        raise SystemExit("no llama-server; compile it with: python bench/peers.py build")
    command = [str(program), "-m", str(GGUF), "--no-ui", "-t", str(threads)]
    command += ["-np", str(SLOTS), "-c", str(CELLS), "--kv-unified"]
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (folder / "smollm2").mkdir()
        (folder / "smollm2" / GGUF.name).symlink_to(GGUF)
        ours = await stack.enter_async_context(lmx(folder, threads))
        theirs = await stack.enter_async_context(peer(LLAMA, command, {}))
        yield ours, theirs


def mlx_model() -> Path:
    """Return the demo model for MLX; it is converted once."""
    model = HOME / "cache" / "bench-mlx" / "smollm2"
    return model if model.exists() else float32_model(model)


@asynccontextmanager
async def mlx_pair(threads: int) -> AsyncIterator[tuple[Server, Server]]:
    """Run LMX and `mlx_lm.server` on the demo model in float32."""
    model = mlx_model()
    async with AsyncExitStack() as stack:
        command = [sys.executable, "-P", "-m", "mlx_lm", "server", "--model", str(model)]
        ours = await stack.enter_async_context(lmx(model.parent, threads))
        theirs = await stack.enter_async_context(peer(MLX, command, blas_env(threads)))
        yield ours, theirs


# --- the comparison


async def compare(ours: Server, theirs: Server, works: list[str], chosen: Namespace) -> None:
    """Let the two take turns, and print what they did."""
    for server in (ours, theirs):
        await server.stream("warm", 4)
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    for turn in range(chosen.rounds):
        for work in works:
            for server in (ours, theirs) if turn % 2 == 0 else (theirs, ours):
                before_s = server.cpu_s
                figures = await WORKS[work](server, turn, chosen.tokens)
                figures[work + SUFFIX] = server.cpu_s - before_s
                for key, value in figures.items():
                    found[server.name, key].append(value)
                print(server.name, figures, file=sys.stderr)
    head(f"LMX beside `{theirs.name}` (SmolLM2-135M)")
    times = [Figure(work + SUFFIX, "CPU time of the server") for work in works]
    for figure in sorted((*FIGURES, *times), key=lambda figure: figure.key.split()[0]):
        if (ours.name, figure.key) not in found:
            continue
        mine, other = (figure.best(found[server.name, figure.key]) for server in (ours, theirs))
        share = f" = {mine / other:.2f} x {other:.3g}" if other else ""
        goal = figure.goals.get(theirs.name, "")
        row(f"{figure.key.split()[0]} {figure.what}", f"{mine:.3g} {figure.unit}{share}", goal)
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    print(f"\n{chosen.threads} threads, {chosen.rounds} rounds, load of the machine {load}")


async def main() -> None:
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="*", choices=["build", "gguf", "mlx", *WORKS, []])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=usable_cores())
    parser.add_argument("--tokens", type=int, default=128)
    chosen = parser.parse_args()
    if "build" in chosen.what:
        llama_server.build()
        return
    works = [work for work in WORKS if work in chosen.what] or list(WORKS)
    pairs = {"gguf": gguf_pair, "mlx": mlx_pair}
    for name in [name for name in pairs if name in chosen.what] or list(pairs):
        async with pairs[name](chosen.threads) as (ours, theirs):
            await compare(ours, theirs, works, chosen)


if __name__ == "__main__":
    asyncio.run(main())
