"""The worker's half of the backend: the engine. Only workers import it.

An engine gets tokens and returns tokens; text, templates and constraints are LMX's. Which sequences
run, who is preempted and how tokens are drawn is in `lmx_kernel.engine`: what is left is `Model`.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq
from typing import ClassVar

import numpy as np
from attrs import define, field
from lmx_kept import Header, read_header
from numpy.typing import NDArray

from lmx_kernel.api import EngineLimits, EngineSpec, InvalidRequestError, LoadOptions, hookimpl
from lmx_kernel.api.engine import (
    NOT_FINITE,
    Engine,
    EngineStats,
    ProgressCallback,
    RunningSequence,
    RunningSet,
    Sequence,
    Step,
)
from lmx_kernel.api.numpy_sampler import Sampler, logprobs, mask_words, read_masks

END = 256
VOCABULARY = 300
CONTEXT = 4  # how many tokens the next one depends on
PIECE = 64  # prompt tokens in a step: other sequences wait for them


class Bytes:
    """A token for each byte, and some control tokens."""

    token_bytes: ClassVar[list[bytes]] = [
        *(bytes([n]) for n in range(END)),
        *(f"<{n}>".encode() for n in range(END, VOCABULARY)),
    ]
    special_ids = frozenset(range(END, VOCABULARY))
    end_ids = frozenset({END})
    chat_template: str | None = (
        "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:"
    )
    template_texts: ClassVar[dict[str, str]] = {}

    def encode(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        """Return the tokens of a text."""
        return list(text.encode())


@define
class Model:
    """Computes logits: here of a hash of the last tokens, so that texts are random."""

    seed: int

    def logits(self, tokens: Seq[int]) -> NDArray[np.float32]:
        """Return the logits of what follows ``tokens``."""
        dice = np.random.default_rng([self.seed, *tokens[-CONTEXT:]])
        return 3 * dice.standard_normal(VOCABULARY, np.float32)


@define(eq=False, kw_only=True)
class Row(RunningSequence):
    """A sequence, and how its tokens are drawn."""

    sampler: Sampler = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.sampler = Sampler(self.sampling, VOCABULARY, self.request.produced)
        self.sampler.read(self.tokens)


class KeptEngine:
    """Continues sequences, a token each in a step."""

    def __init__(self, model: Model, options: LoadOptions) -> None:
        self.tokenizer = Bytes()
        self.limits = EngineLimits(
            context_length=options.context_length,
            max_sequences=options.parallel,
            cache_tokens=options.cache_tokens,
        )
        self._model = model
        self._running: RunningSet[Row] = RunningSet(self.limits, VOCABULARY, lambda *_: None)

    def add(self, sequence: Sequence) -> None:
        """Add a sequence, after checking it."""
        self._running.check(sequence)
        self._running.add(Row(request=sequence))

    def remove(self, sequence_id: int) -> None:
        """Forget a sequence; an unknown one is fine."""
        self._running.remove(sequence_id)

    def step(self) -> Step:
        """Compute a piece of each prompt, and a token of each sequence whose prompt is done."""
        self._running.begin_step()
        self._running.fit_cache()
        for row in self._running:
            if row.in_prefill and (row.done or self._running.has_room_for(row)):
                row.cached = 0
                row.done += min(PIECE, row.pending)
                self._running.report_progress(row)
        for row in self._running:
            if not row.in_prefill:
                self._decode(row)
        return self._running.end_step()

    def embed(self, inputs: Seq[Seq[int]]) -> list[list[float]]:
        """Refuse."""
        raise InvalidRequestError("kept makes no embeddings")

    def trim(self) -> None:
        """Free what only serves later requests: nothing."""

    def stats(self) -> EngineStats:
        """Return current figures."""
        return EngineStats(cache_tokens_used=sum(row.done for row in self._running))

    def close(self) -> None:
        """Free everything."""
        self._running.clear()

    def _decode(self, row: Row) -> None:
        logits = self._model.logits(row.tokens)
        row.done = len(row.tokens)
        if not np.isfinite(logits.max()):
            self._running.fail(row, NOT_FINITE)
            return
        own = logits.copy()  # log-probabilities are the model's own, before any sampling
        token = row.sampler.choose(logits, self._allowed(row))
        if row.mask is not None:
            row.mask.accept((token,))
        forced = self._running.take_forced(row)
        row.sampler.note(forced)
        count = row.alternatives
        details = () if count is None else (logprobs(own, token, count),)
        self._running.give_out(row, (token, *forced), details)

    def _allowed(self, row: Row) -> NDArray[np.bool_] | None:
        words = mask_words(VOCABULARY)
        if row.mask is None or not row.mask.fill(words[0]):
            return None
        return read_masks(words, VOCABULARY)[0]


def open_model(header: Header) -> Model:
    """Return the model that a file describes."""
    return Model(header.seed)


@hookimpl
def lmx_open_engine(spec: EngineSpec, progress: ProgressCallback) -> Engine:
    """Open a model. Report progress: a load that does nothing for long is given up."""
    model = open_model(read_header(spec.card.path))
    progress(1.0)
    return KeptEngine(model, spec.options)
