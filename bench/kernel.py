"""What the kernel itself costs, on fake models that take no time.

usage: python bench/kernel.py
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
import urllib.request
from asyncio.subprocess import PIPE
from pathlib import Path

import psutil
from common import Client, chat, head, median, percentile, row, timed_stream

from lmx_kernel.testing.fake_model import FakeModel
from lmx_kernel.testing.harness import running_daemon, write_config, write_fake_models

REQUESTS = 500
STREAMS = 64
TOKENS = 500


async def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_fake_models(folder, {"m": FakeModel(context_length=8192)})
        limits = "[models]\nparallel = 64\ncache_tokens = 1000000"
        config = write_config(folder, ("lmx_openai_api.plugin",), limits)
        head("Kernel (fake backend, tokens in no time)")
        await start_up(config)
        async with running_daemon(config) as daemon:
            idle = psutil.Process(daemon.process.pid).memory_info().rss
            row("idle daemon, resident", f"{idle / 1e6:.1f} MB", "< 60 MB")
            await one_token(daemon.url)
            await many_streams(daemon.url)


async def start_up(config: Path) -> None:
    times = []
    for _ in range(3):
        began = time.perf_counter()
        async with running_daemon(config, LMX_SERVER_PORT="12399") as daemon:
            while True:
                try:
                    urllib.request.urlopen("http://127.0.0.1:12399/health", timeout=1)
                except OSError:
                    await asyncio.sleep(0.005)
                else:
                    break
            times.append(time.perf_counter() - began)
            await daemon.stop()  # or the fourth start would be in safe mode
    row("start to first 200 on /health", f"{median(times):.2f} s", "< 1 s")


async def one_token(url: str) -> None:
    client, body = Client(url), chat("m", "hi", 1)
    for _ in range(50):
        await client.post("/v1/chat/completions", body)
    times = []
    for _ in range(REQUESTS):
        began = time.perf_counter()
        await client.post("/v1/chat/completions", body)
        times.append(time.perf_counter() - began)
    row("1-token request, p50", f"{median(times) * 1e3:.2f} ms", "<= 1 ms")
    row("1-token request, p99", f"{percentile(times, 0.99) * 1e3:.2f} ms")


async def many_streams(url: str) -> None:
    probe = await asyncio.create_subprocess_exec(
        sys.executable, str(Path(__file__).with_name("probe.py")), url, stdin=PIPE, stdout=PIPE
    )
    began = time.perf_counter()
    bodies = [chat("m", f"q{n}", TOKENS) for n in range(STREAMS)]
    streams = await asyncio.gather(*(timed_stream(url, body) for body in bodies))
    took = time.perf_counter() - began
    health, _ = await probe.communicate(b"")
    tokens = sum(len(stream.times) for stream in streams)
    assert tokens == STREAMS * TOKENS, tokens
    row(f"{STREAMS} streams, in total", f"{tokens / took:,.0f} tokens/s", ">= 10,000")
    row("/health meanwhile, p99", f"{float(health):.1f} ms", "< 50 ms")


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
