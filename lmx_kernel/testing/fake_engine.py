"""The fake backend's engine: counts. Each answer is a run of numbers, so that every lost or doubled
token shows. Its first number depends on the prompt, and above temperature 0 on the seed. Under a
mask it ends its answer as soon as it may.
"""

from __future__ import annotations

import math
import os
import signal
import time
import zlib
from collections import deque
from collections.abc import Sequence as Seq
from pathlib import Path

from attrs import define, field

from lmx_kernel.engine.drafting import Drafting
from lmx_kernel.engine.logits import apply_processors
from lmx_kernel.engine.numerics import Numerics
from lmx_kernel.engine.protocol import (
    STATE_TOKENS,
    EngineStats,
    ProgressCallback,
    Sequence,
    Step,
    TokenLogprobs,
    TokenMask,
)
from lmx_kernel.engine.running import NOT_FINITE, RunningSequence, RunningSet
from lmx_kernel.engine.sequences import common
from lmx_kernel.engine.step_costs import StepCosts
from lmx_kernel.errors import EngineFailedError, ModelUnusableError
from lmx_kernel.hookspecs import hookimpl
from lmx_kernel.testing.fake_model import FakeModel, use_up
from lmx_kernel.types import EngineLimits, EngineSpec, Sampling

BYTES = 256
END = 256
FIRST_WORD = 257
WORDS = 4096
VOCABULARY = FIRST_WORD + WORDS
CLOSERS = (END, *b'"}]')
CHUNK = 64
EFFORT_S, EFFORT_BYTES = 0.02, 128 * 1024
SOUR_AT = 3
MOST_KEPT = 16
TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:"


@hookimpl
def lmx_open_engine(spec: EngineSpec, progress: ProgressCallback) -> FakeEngine:
    script = FakeModel.read(spec.card.path)
    while script.load_hang and use_up(spec.card.path, script.times):
        time.sleep(3600)
    if script.load_error:
        raise ModelUnusableError(script.load_error)
    memory = bytearray(b"\1") * script.allocate_bytes
    _Effort(script.shows).last(script.long_load_s)
    for tenth in range(10):
        progress(tenth / 10)
        time.sleep(script.load_s / 10)
    return FakeEngine(script, spec, memory)


@hookimpl
def lmx_measure_memory(spec: EngineSpec) -> int:
    script = FakeModel.read(spec.card.path)
    _Effort(script.shows).last(script.long_load_s)
    return script.memory_bytes


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

    def __init__(self, chat_template: str | None = TEMPLATE, poison: str = "") -> None:
        self.chat_template = chat_template
        self._poison = poison

    def encode(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        if self._poison and self._poison in text:
            os.abort()
        return list(text.encode())


@define
class _Effort:
    """A long piece of work, and what is to be seen of it; see :attr:`FakeModel.shows`."""

    shows: str
    pulse: int = 0
    _kept: list[bytearray] = field(factory=list)

    def last(self, seconds: float) -> None:
        ends_at = time.monotonic() + seconds
        while (left_s := ends_at - time.monotonic()) > 0:
            if self.shows == "pulse":
                self.pulse += 1
            elif self.shows == "cpu":
                sum(range(100_000))
            elif self.shows == "memory":
                self._kept.append(bytearray(b"\1") * EFFORT_BYTES)
            time.sleep(min(left_s, EFFORT_S))


@define(eq=False, kw_only=True)
class _Run(RunningSequence):
    """A sequence; its answer is what it ``says``, or counts on from ``start``."""

    start: int
    says: bytes
    is_wrong: bool = False

    @property
    def made(self) -> int:
        """Tokens of the answer so far."""
        return len(self.tokens) - self.prompt_length + self.request.produced


@define
class FakeStates:
    """The state of a block is its tokens and the content of the model's file: a state that belongs
    to anything else shows in the answer.
    """

    _path: Path
    _running: RunningSet[_Run]
    _kept: deque[_Run]
    identity: str = "fake 1"
    prompt_token_s: float = 1.0

    def computed(self, sequence_id: int) -> int:
        return next((run.done for run in self._running if run.id == sequence_id), 0)

    def export_block(self, sequence_id: int, start: int) -> memoryview | None:
        run = next(run for run in self._running if run.id == sequence_id)
        return memoryview(self._state(run.tokens[start : start + STATE_TOKENS]))

    def held(self, tokens: Seq[int], cache_space: str) -> int:
        others = [run for run in (*self._kept, *self._running) if run.cache_space == cache_space]
        return max((common(tokens, run.tokens) for run in others), default=0)

    def import_blocks(
        self, tokens: Seq[int], cache_space: str, start: int, states: Seq[bytearray]
    ) -> bool:
        places = range(start, len(tokens), STATE_TOKENS)
        right = [self._state(tokens[place : place + STATE_TOKENS]) for place in places]
        request = Sequence(
            id=-1, tokens=list(tokens), produced=0, sampling=Sampling(), cache_space=cache_space
        )
        is_wrong = list(states) != right
        run = _Run(request=request, done=len(tokens), start=0, says=b"", is_wrong=is_wrong)
        self._kept.append(run)
        return True

    def _state(self, tokens: Seq[int]) -> bytes:
        return self._path.read_bytes() + repr(list(tokens)).encode()


class FakeEngine:
    """Implements :class:`lmx_kernel.engine.Engine`, ``LongSteps`` and ``ExactDrafts`` by the
    script.
    """

    exact_drafts = True

    def __init__(self, script: FakeModel, spec: EngineSpec, memory: bytearray) -> None:
        poison = script.poison if script.poison_in == "prepare" else ""
        self.tokenizer = FakeTokenizer(
            TEMPLATE if script.template == "" else script.template, poison
        )
        self.limits = EngineLimits(
            context_length=spec.options.context_length,
            max_sequences=spec.options.parallel,
            cache_tokens=spec.options.cache_tokens,
        )
        problem = script.irreproducible
        self.numerics = Numerics(identity="fake", is_reproducible=not problem, problem=problem)
        self._script = script
        self._path: Path = spec.card.path
        self._running: RunningSet[_Run] = RunningSet(self.limits, VOCABULARY, lambda *_: None)
        self._made = 0
        self._memory = [memory]
        self._effort = _Effort(script.shows)
        self._drafting = Drafting(StepCosts({1: 1.0, 64: 1.0})) if script.checks_drafts else None
        self._kept: deque[_Run] = deque(maxlen=MOST_KEPT)
        portable = script.portable and script.shares_prefixes
        self.states = FakeStates(self._path, self._running, self._kept) if portable else None

    def add(self, sequence: Sequence) -> None:
        self._running.check(sequence)
        prompt = sequence.tokens[: len(sequence.tokens) - sequence.produced]
        seed = sequence.sampling.seed if sequence.sampling.temperature else 0
        start = zlib.crc32(str(prompt).encode()) + (seed or 0)
        says = self._script.says_to(_text(prompt)).encode()
        self._running.add(_Run(request=sequence, start=start, says=says))

    def remove(self, sequence_id: int) -> None:
        run = self._running.remove(sequence_id)
        if run is not None and self._script.shares_prefixes and not run.in_prefill:
            self._kept.append(run)

    def step(self) -> Step:
        self._effort.pulse += 1
        self._running.begin_step()
        self._running.fit_cache()
        for run in self._running:
            self._prefill(run)
        ready = [run for run in self._running if not run.in_prefill]
        if ready and self._script.tokens_per_s:
            time.sleep(1 / self._script.tokens_per_s)
        if ready and self._script.long_step_s and use_up(self._path, self._script.times):
            self._effort.last(self._script.long_step_s)
        if self._drafting is not None:
            self._drafting.plan(ready, self._running)
        for run in ready:
            self._decode(run)
        return self._running.end_step()

    def pulse(self) -> int | None:
        return None if self._script.shows == "device" else self._effort.pulse

    def embed(self, inputs: Seq[Seq[int]]) -> list[list[float]]:
        return [self._embed(tokens) for tokens in inputs]

    def trim(self) -> None:
        del self._memory[1:]
        self._kept.clear()

    def stats(self) -> EngineStats:
        used, kept = sum(run.done for run in self._running), len(self._kept)
        return EngineStats(cache_tokens_used=used, details={"kept_prefixes": kept})

    def close(self) -> None:
        self._running.clear()

    def _embed(self, tokens: Seq[int]) -> list[float]:
        if self._script.tokens_per_s:
            time.sleep(1 / self._script.tokens_per_s)
        if _has_text(tokens, self._script.sour):
            raise EngineFailedError(NOT_FINITE)
        self._make(tokens, 1)
        angle = zlib.crc32(str(tuple(tokens)).encode())
        return [math.cos(angle), math.sin(angle)]

    def _prefill(self, run: _Run) -> None:
        if not run.in_prefill or not (run.done or self._running.has_room_for(run)):
            return
        if run.cached is None and not self._begin(run):
            return
        chunk = min(CHUNK, run.pending)
        if self._script.prefill_tokens_per_s:
            time.sleep(chunk / self._script.prefill_tokens_per_s)
        if self._script.poison_in == "prefill" and _has_text(run.tokens, self._script.poison):
            os.abort()
        run.done += chunk
        self._running.report_progress(run)

    def _begin(self, run: _Run) -> bool:
        """Begin a prompt with what was computed for others; False if it waits for one of them."""
        older = self._running.older_prompts(run)
        others = (*self._kept, *self._running) if self._script.shares_prefixes else ()
        if others and any(shared > other.done for other, shared in older):
            return False
        shared = (
            (min(common(run.tokens, other.tokens), other.done, len(run.tokens) - 1), other.is_wrong)
            for other in others
            if other.cache_space == run.cache_space
        )
        run.done, run.is_wrong = max(shared, default=(0, False))
        run.cached, run.start = run.done, run.start + run.is_wrong
        return True

    def _decode(self, run: _Run) -> None:
        tokens: list[int] = []
        problem = NOT_FINITE
        while not tokens or run.may_go_on(tokens):
            made = run.made + len(tokens)
            if made == SOUR_AT and _has_text(run.request.tokens, self._script.sour):
                break
            token = self._next(run, made)
            if run.processors:
                token, problem = _adjusted(run, token)
                if problem:
                    break
            if run.mask is not None:
                token = _closest(token, run.mask)
                run.mask.accept((token,))
            tokens.append(token)
        if not tokens:
            self._running.fail(run, problem)
            return
        run.done = len(run.tokens) + len(tokens) - 1
        forced = self._running.take_forced(run, drawn=len(tokens))
        self._make(run.request.tokens, len(tokens) + len(forced))
        asked = () if run.alternatives is None else tokens
        details = tuple(_logprobs(token, run.alternatives or 0) for token in asked)
        self._running.give_out(run, (*tokens, *forced), details)

    def _next(self, run: _Run, made: int) -> int:
        if run.says:
            return run.says[made] if made < len(run.says) else END
        ended = self._script.answer_tokens and made >= self._script.answer_tokens
        return END if ended else FIRST_WORD + (run.start + made) % WORDS

    def _make(self, tokens: Seq[int], count: int) -> None:
        """Make ``count`` tokens that follow ``tokens``, and the faults that are due with them."""
        script, before = self._script, self._made
        self._made += count
        if script.leak_bytes and (not script.leak_tokens or use_up(self._path, script.leak_tokens)):
            self._memory.append(bytearray(b"\1") * script.leak_bytes)
        if _has_text(tokens, script.poison) or (
            before < script.crash_at <= self._made and use_up(self._path, script.times)
        ):
            os.abort()
        if before < script.hang_at <= self._made and use_up(self._path, script.times):
            os.kill(os.getpid(), signal.SIGSTOP)


def _has_text(tokens: Seq[int], text: str) -> bool:
    """Return whether ``text``, if there is one, is in what was asked."""
    if not text:
        return False
    return text in _text(tokens)


def _text(tokens: Seq[int]) -> str:
    return bytes(token for token in tokens if token < BYTES).decode(errors="replace")


def _adjusted(run: _Run, token: int) -> tuple[int, str]:
    """Return what logits processors make of a token, and why the sequence fails, if it does."""
    import numpy as np  # noqa: PLC0415 - few tests need it

    row = np.zeros(VOCABULARY, np.float32)
    row[token] = 1
    problem = apply_processors(run.processors, row, run.tokens)
    return int(row.argmax()), problem


def _closest(token: int, mask: TokenMask) -> int:
    """Return ``token`` if it is allowed, or another that leads to the end."""
    row = bytearray(4 * -(-len(FakeTokenizer.token_bytes) // 32))
    if not mask.fill(row) or row[token // 8] >> token % 8 & 1:
        return token
    allowed = [n for n in range(len(FakeTokenizer.token_bytes)) if row[n // 8] >> n % 8 & 1]
    return next((closer for closer in CLOSERS if closer in allowed), allowed[0])


def _logprobs(token: int, top: int) -> TokenLogprobs:
    return TokenLogprobs(-0.25, tuple((token - n, -0.25 - 2 * n) for n in range(top)))
