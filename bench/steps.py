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
        clock.library_s += time.thread_time() - began_s
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


SECTIONS: dict[str, Callable[[], None]] = {"idle": idle}

if __name__ == "__main__":
    count_times()
    for section in sys.argv[1:] or SECTIONS:
        SECTIONS[section]()
