"""The GGUF backend through the whole server, on the demo model, against `Llama()` in process.

usage: python bench/gguf.py [SECTION ...]      (decode prefix mixed busy crash; default: all)
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
from common import Client, Stream, chat, head, median, percentile, row, timed_stream

from lmx_kernel.testing.harness import RunningDaemon, running_daemon

MODEL = "smollm2-135m-instruct"
FILE = Path("~/.lmx/models/smollm2-135m-instruct/SmolLM2-135M-Instruct.Q4_1.gguf").expanduser()
TOKENS = 128
STORY = "Tell me a long story about a lighthouse keeper and the sea. "
PEER = f"""
import time
from llama_cpp import Llama
llama = Llama({str(FILE)!r}, n_ctx=2048, n_threads=2, n_threads_batch=2, verbose=False)
def run():
    times = []
    for _ in llama.create_chat_completion(
        [{{"role": "user", "content": {STORY!r}}}], max_tokens={TOKENS}, stream=True,
        temperature=0, logit_bias={{2: -100.0}},
    ):
        times.append(time.perf_counter())
    return (len(times) - 3) / (times[-2] - times[1])
run()
print(max(run(), run()))
"""


def long_text(tokens: int, salt: str = "") -> str:
    """Return text of about ``tokens`` tokens; another salt shares no prefix."""
    return f"{salt} " + " ".join(f"item {n % 90} is here." for n in range(int(tokens / 6.9)))


async def stream(url: str, text: str, tokens: int, **fields: object) -> Stream:
    """Run one greedy stream that does not end by itself."""
    bias = {"logit_bias": {"2": -100}, "temperature": 0}
    return await timed_stream(url, chat(MODEL, text, tokens, **(bias | fields)))


def rate(streams: list[Stream]) -> float:
    """Return tokens/s from the first token on to the last one, over all streams."""
    start = min(stream.first_s for stream in streams)
    end = max(stream.times[-1] for stream in streams)
    return sum(len(stream.times) - 1 for stream in streams) / (end - start)


async def decode(daemon: RunningDaemon) -> None:
    head("Decoding (SmolLM2-135M Q4_1)")
    url = daemon.url
    await stream(url, STORY, TOKENS)
    peer = float(subprocess.check_output([sys.executable, "-c", PEER]))
    one = max([rate([await stream(url, STORY, TOKENS)]) for _ in range(2)])
    row("`Llama()` in process, one stream", f"{peer:.0f} tokens/s")
    row("one stream", f"{one:.0f} tokens/s = {one / peer:.2f} x", ">= 0.95 x")
    eight = await asyncio.gather(*(stream(url, f"{n} {STORY}", TOKENS) for n in range(8)))
    row("8 streams", f"{rate(eight):.0f} tokens/s = {rate(eight) / one:.2f} x one", ">= 1.4 x")
    began = time.perf_counter()
    many = await asyncio.gather(*(stream(url, f"{n} {STORY}", 32) for n in range(64)))
    took = time.perf_counter() - began
    answered = sum(len(one.times) > 0 and not one.error for one in many)
    row("64 at once", f"{answered} answered in {took:.1f} s", "all")


async def prefix(daemon: RunningDaemon) -> None:
    head("A shared prefix of about 1,200 tokens, questions of about 12")
    shared = long_text(1200, "prefix")
    question = "{} What do you think of number {}?"  # 12 tokens, and 5 of the template
    first = await stream(daemon.url, question.format(shared, 1), 8)
    row("first request, first token", f"{first.first_s * 1e3:.0f} ms")
    later = [await stream(daemon.url, question.format(shared, n), 8) for n in range(2, 8)]
    ratio = first.first_s / median([one.first_s for one in later])
    row("later ones", f"{first.first_s / ratio * 1e3:.0f} ms = 1/{ratio:.0f}", "<= 1/40")
    eight = await asyncio.gather(
        *(stream(daemon.url, question.format(shared, n), 8) for n in range(10, 18))
    )
    firsts = [one.first_s for one in eight]
    for name, value in (("first", min(firsts)), ("median", median(firsts)), ("last", max(firsts))):
        row(
            f"8 at once, {name}", f"{value * 1e3:.0f} ms = 1/{first.first_s / value:.0f}", "<= 1/40"
        )


async def mixed(daemon: RunningDaemon) -> None:
    head("A prompt of about 1,500 tokens among 4 running streams")
    alone = await stream(daemon.url, long_text(1500, "alone"), 4)
    running = [asyncio.create_task(stream(daemon.url, f"{n} {STORY}", 400)) for n in range(4)]
    began = time.perf_counter()
    await asyncio.sleep(3)  # the streams' own pace, to compare with
    arrived = time.perf_counter() - began
    among = await stream(daemon.url, long_text(1500, "among"), 4)
    ended = arrived + among.first_s
    streams = await asyncio.gather(*running)
    before = [gap for one in streams for gap in gaps_between(one, 1.0, arrived)]
    during = [gap for one in streams for gap in gaps_between(one, arrived, ended)]
    stretch = median(during) / median(before)
    row("inter-token gap before", f"{median(before) * 1e3:.0f} ms")
    mean = sum(during) / len(during)
    row("while it is read, median", f"{median(during) * 1e3:.0f} ms = {stretch:.1f} x", "<= 5 x")
    row("while it is read, mean", f"{mean * 1e3:.0f} ms = {mean / median(before):.1f} x", "<= 5 x")
    row("while it is read, p95", f"{percentile(during, 0.95) * 1e3:.0f} ms")
    row("its first token alone", f"{alone.first_s:.2f} s")
    row("among them", f"{among.first_s:.2f} s = {among.first_s / alone.first_s:.2f} x", "<= 1.5 x")


def gaps_between(one: Stream, start: float, end: float) -> list[float]:
    pairs = zip(one.times, one.times[1:], strict=False)
    return [after - before for before, after in pairs if start <= before and after <= end]


async def busy(daemon: RunningDaemon) -> None:
    head("Two busy processes beside it")
    quiet = rate([await stream(daemon.url, STORY, 64)])
    burners = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
    try:
        loaded = rate([await stream(daemon.url, STORY, 64)])
    finally:
        for burner in burners:
            burner.kill()
            burner.wait()
    row("one stream, quiet", f"{quiet:.0f} tokens/s")
    row("beside them", f"{loaded:.0f} tokens/s = {loaded / quiet:.2f} x", ">= 0.33 x")


async def crash(daemon: RunningDaemon) -> None:
    head("SIGKILL of the worker in mid-stream")
    status = msgspec.json.decode(await Client(daemon.url).get("/health/status"))
    pid = status["models"][0]["pid"]
    detailed = {"logprobs": True, "top_logprobs": 2}
    task = asyncio.create_task(stream(daemon.url, STORY, 150, **detailed))
    await asyncio.sleep(0.7)
    os.kill(pid, signal.SIGKILL)
    interrupted = await task
    whole = await stream(daemon.url, STORY, 150, **detailed)
    row("longest gap", f"{max(interrupted.gaps):.2f} s", "load + prefill + 0.5 s")
    pairs = enumerate(zip(interrupted.tokens, whole.tokens, strict=True))
    parted = next((at for at, (one, other) in pairs if one != other), None)
    near = "never" if parted is None else f"token {parted}, margin {whole.margins[parted]:.3f}"
    row("leaves the undisturbed text at", near, "never, or a near-tie")


SECTIONS: dict[str, Callable[[RunningDaemon], object]] = {
    "decode": decode,
    "prefix": prefix,
    "mixed": mixed,
    "busy": busy,
    "crash": crash,
}


async def main() -> None:
    wanted = sys.argv[1:] or list(SECTIONS)
    with tempfile.TemporaryDirectory() as name:
        config = Path(name) / "config.toml"
        config.write_text(f'[model_folders]\npaths = ["{FILE.parent.parent}"]\n')
        async with running_daemon(config) as daemon:
            await stream(daemon.url, "hi", 2)
            for section in wanted:
                await SECTIONS[section](daemon)
            loads = [
                line["load_s"]
                for text in (config.parent / "daemon.log").read_text().splitlines()
                if (line := msgspec.json.decode(text)).get("event") == "model_loaded"
            ]
            head("Loads")
            row("load_s", ", ".join(f"{load:.2f}" for load in loads))


if __name__ == "__main__":
    asyncio.run(main())
