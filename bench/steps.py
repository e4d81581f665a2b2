"""Where a worker's time goes, in process: how long its device waits between steps, and what many
requests cost beside what few cost.

Times are CPU times of the thread that steps the engine, which computes alone here (one thread), or
medians, so other programs on the machine disturb them little.

usage: python bench/steps.py [SECTION ...]      (idle load kept; default: all)
"""

# ruff: noqa: SLF001 - it looks inside
from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from attrs import define, field
from common import head, median, row
from gguf import FILE
from lmx_gguf_backend.backend import GgufBackend

os.environ.update(GgufBackend().worker_env({}))

from lmx_gguf_backend.context import Context
from lmx_gguf_backend.engine import GgufEngine
from lmx_gguf_backend.rows import Piece
from lmx_gguf_backend.worker import lmx_open_engine

from lmx_kernel.types import (
    ChatPrompt,
    EngineSpec,
    GenerationRequest,
    LoadOptions,
    Location,
    Message,
    SamplingRequest,
    TextPart,
)
from lmx_kernel.worker import messages as wire
from lmx_kernel.worker.channel import Channel
from lmx_kernel.worker.loop import Loop

STORY = "Tell me a long story about a lighthouse keeper and the sea."
QUESTION = "Please tell me in a few plain words what you know about the number"
NO_END = {2: -100.0}


@define
class Clock:
    """CPU time of this thread: all of it, within steps of the engine, and within the library."""

    library_s: float = 0.0
    engine_s: float = 0.0
    rows: int = 0
    steps: int = 0
    total_s: float = 0.0
    gaps_s: list[float] = field(factory=list)
    last_s: float = 0.0
    times_s: list[float] = field(factory=list)

    def each_ms(self, seconds: float) -> str:
        """Return what a step has of ``seconds``."""
        return f"{seconds / self.steps * 1e3:.2f} ms"


clock = Clock()


def count_times() -> None:
    """Let the engine's calls add to :data:`clock`."""
    compute, step = Context.compute, GgufEngine.step

    def timed_compute(self: Context, pieces: Any) -> int:
        now_s, began_s = time.perf_counter(), time.thread_time()
        if clock.last_s:
            clock.gaps_s.append(now_s - clock.last_s)
        outcome = compute(self, pieces)
        clock.last_s = time.perf_counter()
        clock.times_s.append(time.thread_time() - began_s)
        clock.library_s += clock.times_s[-1]
        clock.rows += sum(len(piece.tokens) for piece in pieces)
        clock.steps += 1
        return outcome

    def timed_step(self: GgufEngine) -> Any:
        began_s = time.thread_time()
        result = step(self)
        clock.engine_s += time.thread_time() - began_s
        return result

    Context.compute, GgufEngine.step = timed_compute, timed_step  # type: ignore[method-assign]


class Worker:
    """A worker's loop in this process; what it sends is read and thrown away."""

    def __init__(self, parallel: int) -> None:
        ours, theirs = socket.socketpair()
        threading.Thread(
            target=lambda: [*iter(lambda: ours.recv(1 << 16), b"")], daemon=True
        ).start()
        card = GgufBackend().identify(Location(FILE.parent.name, FILE.parent, (FILE.name,)))[0]
        options = LoadOptions(context_length=4096, parallel=parallel, cache_tokens=16384)
        spec = EngineSpec(card=card, options=options, settings={"threads": 1})
        self.engine = lmx_open_engine(spec, lambda *_: None)
        self.loop = Loop(self.engine, Channel(theirs))
        self._number = 0

    def prepare(self, text: str, tokens: int) -> int:
        """Prepare a request, and return its id."""
        self._number += 1
        prompt = ChatPrompt((Message("user", (TextPart(text),)),))
        sampling = SamplingRequest(temperature=0.0, logit_bias=NO_END)
        request = GenerationRequest(model="m", prompt=prompt, sampling=sampling, max_tokens=tokens)
        self.loop.prepare(wire.Prepare(self._number, request))
        self.loop._preparer.find(self._number)
        return self._number

    def run(self, texts: list[str], tokens: int, slots: int) -> Clock:
        """Answer all, so many at a time; return what it took."""
        global clock
        waiting = [self.prepare(text, tokens) for text in texts]
        clock, loop, began_s = Clock(), self.loop, time.thread_time()
        while waiting or loop._is_busy:
            while waiting and len(loop._running) + loop._inbox.qsize() < slots:
                loop.take(wire.Start(waiting.pop(0), 0, 1))
            loop.turn()
        clock.total_s = time.thread_time() - began_s
        return clock


def idle() -> None:
    head("The device between two steps, one thread of CPU")
    worker = Worker(16)
    for streams in (1, 4, 16):
        texts = [f"{n} {STORY}" for n in range(streams)]
        worker.run(texts, 8, streams)
        worker.engine.trim()
        took = worker.run(texts, 64, streams)
        row(f"{streams} streams, between two steps, median", f"{median(took.gaps_s) * 1e3:.2f} ms")
        share = 1 - took.library_s / took.total_s
        row("of CPU time", f"{share:.1%} of {took.each_ms(took.total_s)} a step")
        row("in the loop", took.each_ms(took.total_s - took.engine_s))
        row("in the engine", took.each_ms(took.engine_s - took.library_s))


def load() -> None:
    head("Different requests, 16 at a time")
    worker = Worker(16)
    worker.run([f"Warm up {n}." for n in range(16)], 8, 16)
    worker.engine.trim()
    rates = {}
    for count in (16, 75):
        worker.engine.trim()
        took = worker.run([f"{QUESTION} {n} of {count}?" for n in range(count)], 40, 16)
        rates[count] = count * 40 / took.total_s
        row(f"{count} requests", f"{rates[count]:.0f} tokens a second of CPU")
        row("steps, rows of a step", f"{took.steps}, {took.rows / took.steps:.1f}")
        row("outside of the library", f"{1 - took.library_s / took.total_s:.1%}")
    row("many of few", f"{rates[75] / rates[16]:.2f} x", ">= 0.9 x")


def kept() -> None:
    head("One stream beside 12 kept prefixes of 512 tokens")
    worker = Worker(16)
    tokens, state = compute_prefix(worker.engine._context, 512)
    before, after, ratios = slice(5, 50), slice(80, 140), []
    for _ in range(2):
        worker.engine.trim()
        alone = worker.run([STORY], 140, 1).times_s
        worker.engine.trim()
        keep(worker.engine, tokens, state, 12)
        beside = worker.run([STORY], 140, 1).times_s
        ratios.append([median(alone[at]) / median(beside[at]) for at in (before, after)])
    for name, values in zip(
        ("before they are parked", "from step 80 on"), zip(*ratios, strict=True), strict=True
    ):
        row(f"its speed, {name}", " and ".join(f"{value:.2f} x" for value in values), ">= 0.9 x")


def compute_prefix(context: Context, length: int) -> tuple[list[int], Any]:
    """Compute tokens, and return them and their state."""
    tokens = [5 + n * 7 % 40_000 for n in range(length)]
    context.compute([Piece(0, tokens, 0, 1)])
    state = context.save(0, length, 1 << 40)
    context.drop(0)
    return tokens, state


def keep(engine: Any, tokens: list[int], state: Any, count: int) -> None:
    """Let an engine keep prefixes, without computing each of them."""
    context, prefixes = engine._context, engine._prefixes
    for number in range(count):
        context.restore(0, state, len(tokens))
        kept = prefixes.store.keep([number, *tokens[1:]], "", prefixes.rows)
        context.copy(0, kept.slot, len(tokens))
        context.drop(0)


SECTIONS: dict[str, Callable[[], None]] = {"idle": idle, "load": load, "kept": kept}

if __name__ == "__main__":
    count_times()
    for section in sys.argv[1:] or SECTIONS:
        SECTIONS[section]()
