"""The engine protocol: tokens in, tokens out.

An engine lives in a worker process and is stepped by the kernel's loop. It knows nothing of text,
chat or HTTP. Sequences join and leave between steps, so continuous batching is the protocol itself.
All methods are called from one thread, the worker's main thread, except those of the tokenizer.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence as Seq
from typing import Any, Protocol, runtime_checkable

from attrs import define, field, frozen

from lmx_kernel.engine.draft_model import ModelDrafts
from lmx_kernel.engine.drafts import DraftSource
from lmx_kernel.types import EngineLimits, Sampling


class ProgressCallback(Protocol):
    """Called while a model loads. A load that reports nothing for long, reads nothing and computes
    nothing is given up.
    """

    def __call__(self, share: float, doing: str = "") -> None:
        """Report progress.

        :param share: what is done, 0..1.
        :param doing: what comes next; named in the error if the worker ends or hangs in it.
        """
        ...


class Tokenizer(Protocol):
    """Text to tokens and back. Its methods may be called from any thread.

    :ivar token_bytes: the bytes of every token, control tokens included; as many as the vocabulary
        has tokens.
    :ivar special_ids: ids whose bytes are not part of visible text (control tokens).
    :ivar end_ids: ids that end an answer.
    :ivar chat_template: Jinja source, or None for a model that was not trained to chat.
    :ivar template_texts: names a template may use for special tokens (bos_token, eos_token, ...).
    """

    token_bytes: Seq[bytes]
    special_ids: frozenset[int]
    end_ids: frozenset[int]
    chat_template: str | None
    template_texts: dict[str, str]

    def encode(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        """Return the tokens of ``text``.

        :param add_special: put the model's own begin token where it wants one.
        :param parse_special: read the text of control tokens as those tokens.
        """
        ...


class TokenMask(Protocol):
    """Which token one sequence may have next, given those it has. Its methods never raise.

    An engine calls :meth:`fill` before each draw of that sequence and :meth:`accept` after it; it
    may take :meth:`forced` tokens without drawing. After a draw that completes an answer, or after
    which it cannot be completed, the worker's loop removes the sequence: an engine that draws
    several tokens in a step ends with that one.

    :ivar problem: why no token may follow although the answer is not complete; "" if one may.
    """

    problem: str

    @property
    def is_complete(self) -> bool:
        """Whether the answer ends here, because nothing may follow."""
        ...

    def fill(self, row: Any) -> bool:
        """Write which tokens are allowed, one bit each, lowest first, into a writable buffer of
        int32 words that covers the vocabulary. At least one is allowed.

        :returns: False where every token is allowed, or the answer is over; ``row`` may hold
            anything then.
        """
        ...

    def accept(self, tokens: Seq[int]) -> None:
        """Continue after ``tokens``."""
        ...

    def forced(self) -> list[int]:
        """Return the tokens that must come next, whatever would be drawn; not accepted yet."""
        ...


class LogitsProcessor(Protocol):
    """Changes the logits that a token is sampled from. It keeps no state between calls, so that an
    answer that is resumed, or computed beside others, goes on as it would have.
    """

    def adjust(self, row: Any, tokens: Seq[int]) -> None:
        """Change ``row`` in place; called before every draw.

        :param row: a numpy array of float32, the logits of the vocabulary: before bias, penalties
            and all other sampling. ``-inf`` bars a token. Log-probabilities do not show it.
        :param tokens: what comes before: the prompt and the answer so far. Not to be changed.
        """
        ...


class LogitsKind(Protocol):
    """What an entry point of the group ``lmx.logits`` names."""

    def __call__(self, options: Mapping[str, Any], tokenizer: Tokenizer) -> LogitsProcessor:
        """Return the processor of one request, for all its candidates.

        :param options: what the request says beside the processor's name.
        :raises ValueError: an option is wrong, as is a TypeError; the client reads why.
        """
        ...


@frozen(kw_only=True)
class Sequence:
    """One sequence that the engine continues until it is removed.

    :param id: unique among the engine's sequences.
    :param tokens: the prompt, followed by ``produced`` tokens that were answered before.
    :param produced: how many of ``tokens`` are answer already. A sequence that is added again this
        way continues as if it had never left: draws and penalties count from there.
    :param sampling: its seed is always set.
    :param logprobs: None, or how many alternatives beside the chosen token.
    :param mask: which tokens it may have, after the ``produced`` ones; None for any.
    :param cache_space: what is computed for one sequence may serve another one of the same space,
        and no others: neither when it is kept, nor while it runs, nor in :class:`Progress`.
    :param processors: change its logits, in this order, before anything else does; by name. See
        :func:`lmx_kernel.engine.logits.apply_processors`.
    :param drafts: what its next tokens may be; None for no drafts. An engine may ignore it, and
        does beside processors, which see a text token by token.
    :param draft_model: its drafts by a draft model, where these are better; None for none.
    """

    id: int
    tokens: list[int]
    produced: int
    sampling: Sampling
    logprobs: int | None = None
    mask: TokenMask | None = None
    cache_space: str = ""
    processors: Mapping[str, LogitsProcessor] = field(factory=dict)
    drafts: DraftSource | None = None
    draft_model: ModelDrafts | None = None


@frozen
class TokenLogprobs:
    """log-probabilities under the model's own distribution, before sampling parameters."""

    chosen: float
    top: tuple[tuple[int, float], ...]


@frozen
class Output:
    """New tokens of one sequence, and their log-probabilities if they were asked for.

    :param drafted: drafts that were computed in this step.
    :param accepted: how many of them were right: the first ones of ``tokens``.
    :param draft_model: whose they were; "" where no model made them.
    """

    id: int
    tokens: tuple[int, ...]
    logprobs: tuple[TokenLogprobs, ...] = ()
    drafted: int = 0
    accepted: int = 0
    draft_model: str = ""


@frozen
class Progress:
    """Prompt tokens computed so far; ``cached`` of them were taken from an earlier prompt."""

    id: int
    processed: int
    total: int
    cached: int


@frozen
class Step:
    """What one step did.

    :param outputs: new tokens; possibly several of one sequence.
    :param progress: prompts that moved.
    :param preempted: sequences that left because the cache was full; they may be added again.
    :param failed: sequences that the engine gave up, with the reason; they left too.
    """

    outputs: tuple[Output, ...] = ()
    progress: tuple[Progress, ...] = ()
    preempted: tuple[int, ...] = ()
    failed: tuple[tuple[int, str], ...] = ()


@define
class StepBuilder:
    """Collects what a step does; the fields are those of :class:`Step`."""

    outputs: list[Output] = field(factory=list)
    progress: list[Progress] = field(factory=list)
    preempted: list[int] = field(factory=list)
    failed: list[tuple[int, str]] = field(factory=list)

    def build(self) -> Step:
        """Return the step."""
        return Step(
            tuple(self.outputs), tuple(self.progress), tuple(self.preempted), tuple(self.failed)
        )


@frozen(kw_only=True)
class EngineStats:
    """Figures of a running engine.

    :param cache_tokens_used: tokens held for running sequences and kept prefixes.
    :param memory_bytes: what the engine's own allocator holds, on a device too; 0 if it has none.
    :param details: further figures, by names that the engine chooses.
    """

    cache_tokens_used: int
    memory_bytes: int = 0
    details: dict[str, float] = field(factory=dict)


@runtime_checkable
class Engine(Protocol):
    """A loaded model that continues sequences of tokens."""

    tokenizer: Tokenizer
    limits: EngineLimits

    def add(self, sequence: Sequence) -> None:
        """Add a sequence; it is computed from the next step on.

        The caller never adds more than ``limits.max_sequences``, nor one longer than
        ``limits.context_length``, nor a token id outside the vocabulary; the engine checks all
        three again, since a wrong argument must not reach native code.

        :raises LmxError: the sequence is refused; nothing else changed.
        """
        ...

    def step(self) -> Step:
        """Advance everything once: a bounded piece of prefill, one decode of the whole batch.

        Takes a fraction of a second, since cancelling and joining happen between steps; an engine
        whose steps may take many seconds implements :class:`LongSteps` too. The first sequence that
        was added always advances, so that the batch as a whole cannot get stuck.
        """
        ...

    def remove(self, sequence_id: int) -> None:
        """Forget a sequence; an unknown id is ignored."""
        ...

    def embed(self, inputs: Seq[Seq[int]]) -> list[list[float]]:
        """Return a vector of length 1 for each sequence of tokens, in one go.

        :raises LmxError: the model makes no embeddings, or an input is too long.
        """
        ...

    def trim(self) -> None:
        """Free the memory that only serves later requests; running sequences are not disturbed."""
        ...

    def stats(self) -> EngineStats:
        """Return current figures; cheap."""
        ...

    def close(self) -> None:
        """Free everything."""
        ...


@runtime_checkable
class ExactDrafts(Protocol):
    """An engine that says whether its texts are the same with drafts, near-ties included."""

    @property
    def exact_drafts(self) -> bool:
        """Whether a token is the same however many are computed in its step. Then sequences get
        drafts where the owner of the model has said nothing about them.
        """
        ...


@runtime_checkable
class LongSteps(Protocol):
    """An engine that says from within a long call that it computes, or it may be taken for hung.

    Without it the kernel sees the CPU time of the process and the bytes that it reads. These allow
    an engine of this process several times its longest step so far.
    """

    def pulse(self) -> int | None:
        """Return a number that changes whenever a call of the engine has come further.

        Called by another thread during such a call, so it must not wait for it. Native code that
        holds the interpreter's lock cannot be asked.

        :returns: None where a device computes that cannot be asked: the kernel then allows several
            times the longest step so far, though the process does nothing.
        """
        ...


@runtime_checkable
class InterruptibleSteps(Protocol):
    """An engine whose steps may be long while nobody waits for them to end."""

    def interrupt(self) -> None:
        """Have the step that runs end soon, or the next one be short: a sequence is about to be
        added or removed. What it computed may be lost; then it reports nothing of that.

        Called by another thread, at any time; must not wait for the step.
        """
        ...
