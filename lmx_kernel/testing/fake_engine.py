"""The fake backend's engine: counts. Each answer is a run of numbers, so that every lost or doubled
token shows. Where it begins hangs on the prompt, and above temperature 0 on the seed. Under a mask
it comes to the end as soon as it may.
"""

from __future__ import annotations

import math
import os
import signal
import time
import zlib
from collections.abc import Sequence as Seq
from pathlib import Path

from attrs import define, field

from lmx_kernel.engine.protocol import (
    EngineStats,
    Output,
    Progress,
    ProgressCallback,
    Sequence,
    Step,
    TokenLogprobs,
    TokenMask,
)
from lmx_kernel.errors import EngineFailedError, ModelUnusableError
from lmx_kernel.hookspecs import hookimpl
from lmx_kernel.testing.fake_model import FakeModel, use_up
from lmx_kernel.types import EngineLimits, EngineSpec

BYTES = 256
END = 256
FIRST_WORD = 257
WORDS = 4096
CLOSERS = (END, *b'"}]')
CHUNK = 64
SOUR_AT = 3
TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:"


@hookimpl
def lmx_open_engine(spec: EngineSpec, progress: ProgressCallback) -> FakeEngine:
    script = FakeModel.read(spec.card.path)
    while script.load_hang and use_up(spec.card.path, script.times):
        time.sleep(3600)
    if script.load_error:
        raise ModelUnusableError(script.load_error)
    memory = bytearray(b"\1") * script.allocate_bytes
    for tenth in range(10):
        progress(tenth / 10)
        time.sleep(script.load_s / 10)
    return FakeEngine(script, spec, memory)


@hookimpl
def lmx_measure_memory(spec: EngineSpec) -> int:
    return FakeModel.read(spec.card.path).memory_bytes


class FakeTokenizer:
    """A token a byte, and a token for each number below 4096."""

    token_bytes: list[bytes] = [  # noqa: RUF012 - constant
        *(bytes([n]) for n in range(BYTES)),
        b"<end>",
        *(f" {n}".encode() for n in range(WORDS)),
    ]
    special_ids = frozenset({END})
    end_ids = frozenset({END})
    template_texts: dict[str, str] = {}  # noqa: RUF012 - constant

    def __init__(self, chat_template: str = TEMPLATE) -> None:
        self.chat_template = chat_template

    def encode(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        return list(text.encode())


@define
class _Run:
    sequence: Sequence
    start: int
    computed: int = 0
    made: int = field(default=0)


class FakeEngine:
    """Implements :class:`lmx_kernel.engine.Engine` by the script."""

    def __init__(self, script: FakeModel, spec: EngineSpec, memory: bytearray) -> None:
        self.tokenizer = FakeTokenizer(script.template or TEMPLATE)
        self.limits = EngineLimits(
            context_length=spec.options.context_length,
            max_sequences=spec.options.parallel,
            cache_tokens=spec.options.cache_tokens,
        )
        self._script = script
        self._path: Path = spec.card.path
        self._runs: dict[int, _Run] = {}
        self._made = 0
        self._memory = [memory]

    def add(self, sequence: Sequence) -> None:
        prompt = sequence.tokens[: len(sequence.tokens) - sequence.produced]
        seed = sequence.sampling.seed if sequence.sampling.temperature else 0
        start = zlib.crc32(str(prompt).encode()) + (seed or 0)
        self._runs[sequence.id] = _Run(sequence, start, made=sequence.produced)

    def remove(self, sequence_id: int) -> None:
        self._runs.pop(sequence_id, None)

    def step(self) -> Step:
        preempted = self._make_room()
        progress = [move for run in self._runs.values() if (move := self._prefill(run))]
        ready = [run for run in self._runs.values() if run.computed >= len(run.sequence.tokens)]
        if ready and self._script.tokens_per_s:
            time.sleep(1 / self._script.tokens_per_s)
        failed = self._fail(ready)
        outputs = [self._decode(run) for run in ready if run.sequence.id in self._runs]
        return Step(tuple(outputs), tuple(progress), preempted, failed)

    def embed(self, inputs: Seq[Seq[int]]) -> list[list[float]]:
        return [self._embed(tokens) for tokens in inputs]

    def trim(self) -> None:
        del self._memory[1:]

    def stats(self) -> EngineStats:
        used = sum(run.computed + run.made for run in self._runs.values())
        return EngineStats(cache_tokens_used=used)

    def close(self) -> None:
        self._runs.clear()

    def _embed(self, tokens: Seq[int]) -> list[float]:
        if self._script.tokens_per_s:
            time.sleep(1 / self._script.tokens_per_s)
        if _has_text(tokens, self._script.sour):
            raise EngineFailedError("the model's numbers are not finite")
        self._misbehave(tokens)
        self._made += 1
        angle = zlib.crc32(str(tuple(tokens)).encode())
        return [math.cos(angle), math.sin(angle)]

    def _make_room(self) -> tuple[int, ...]:
        """Put out the youngest until the rest has room for one more token each."""
        preempted = []
        while len(self._runs) > 1 and self._needed_tokens() > self.limits.cache_tokens:
            preempted.append(self._runs.popitem()[0])
        return tuple(preempted)

    def _needed_tokens(self) -> int:
        return sum(
            len(run.sequence.tokens) - run.sequence.produced + run.made + 1
            for run in self._runs.values()
        )

    def _prefill(self, run: _Run) -> Progress | None:
        total = len(run.sequence.tokens)
        if run.computed >= total:
            return None
        chunk = min(CHUNK, total - run.computed)
        if self._script.prefill_tokens_per_s:
            time.sleep(chunk / self._script.prefill_tokens_per_s)
        run.computed += chunk
        return Progress(run.sequence.id, run.computed, total, 0)

    def _decode(self, run: _Run) -> Output:
        self._misbehave(run.sequence.tokens)
        self._made += 1
        token = self._next(run)
        if run.sequence.mask is not None:
            token = _closest(token, run.sequence.mask)
            run.sequence.mask.accept((token,))
        run.made += 1
        asked = run.sequence.logprobs
        logprobs = () if asked is None else (_logprobs(token, asked),)
        return Output(run.sequence.id, (token,), logprobs)

    def _next(self, run: _Run) -> int:
        if self._script.says:
            said = self._script.says.encode()
            return said[run.made] if run.made < len(said) else END
        ended = self._script.answer_tokens and run.made >= self._script.answer_tokens
        return END if ended else FIRST_WORD + (run.start + run.made) % WORDS

    def _fail(self, ready: list[_Run]) -> tuple[tuple[int, str], ...]:
        sour = [
            run.sequence.id
            for run in ready
            if run.made == SOUR_AT and _has_text(run.sequence.tokens, self._script.sour)
        ]
        for sequence_id in sour:
            del self._runs[sequence_id]
        return tuple((sequence_id, "the model's numbers are not finite") for sequence_id in sour)

    def _misbehave(self, tokens: Seq[int]) -> None:
        script = self._script
        if script.leak_bytes and (not script.leak_tokens or use_up(self._path, script.leak_tokens)):
            self._memory.append(bytearray(b"\1") * script.leak_bytes)
        if _has_text(tokens, script.poison) or (
            self._is_due(script.crash_at) and use_up(self._path, script.times)
        ):
            os.abort()
        if self._is_due(script.hang_at) and use_up(self._path, script.times):
            os.kill(os.getpid(), signal.SIGSTOP)

    def _is_due(self, at: int) -> bool:
        return bool(at) and self._made + 1 == at


def _has_text(tokens: Seq[int], text: str) -> bool:
    """Return whether ``text``, if there is one, is in what was asked."""
    if not text:
        return False
    return text.encode() in bytes(token for token in tokens if token < BYTES)


def _closest(token: int, mask: TokenMask) -> int:
    """Return ``token`` if it is allowed, or another that leads to the end."""
    row = bytearray(4 * -(-len(FakeTokenizer.token_bytes) // 32))
    if not mask.fill(row) or row[token // 8] >> token % 8 & 1:
        return token
    allowed = [n for n in range(len(FakeTokenizer.token_bytes)) if row[n // 8] >> n % 8 & 1]
    return next((closer for closer in CLOSERS if closer in allowed), allowed[0])


def _logprobs(token: int, top: int) -> TokenLogprobs:
    return TokenLogprobs(-0.25, tuple((token - n, -0.25 - n) for n in range(top)))
