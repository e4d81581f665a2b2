"""The events of an answer, and its usage."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

from attrs import frozen


@frozen
class TokenLogprob:
    """A token and the natural logarithm of its probability under the model."""

    token: int
    text: bytes
    logprob: float


@frozen
class Logprobs:
    """The sampled token and, likeliest first, the alternatives that were requested."""

    chosen: TokenLogprob
    top: tuple[TokenLogprob, ...]


@frozen
class Admitted:
    """The request passed all checks and is not refused any more. Always the first event.

    :param fingerprint: stands for everything that the answer depends on beside the request: the
        model's files, libraries, device and settings.
    """

    prompt_tokens: int
    fingerprint: str = ""


@frozen
class PromptProgress:
    """Progress of a candidate's prefill; ``cached`` tokens were found in the prefix cache."""

    candidate: int
    processed: int
    total: int
    cached: int


@frozen
class TextDelta:
    """More of a candidate's text, with its tokens.

    The text may be empty (a character or a possible stop string is not complete yet), and the
    tokens may be empty (text that was held back is released): each token is in one event, in order.
    """

    candidate: int
    text: str
    tokens: tuple[int, ...]
    logprobs: tuple[Logprobs, ...] = ()


@frozen
class ReasoningDelta:
    """More of a candidate's reasoning. Its tokens are in a :class:`TextDelta`."""

    candidate: int
    text: str


@frozen
class ToolCallStarted:
    """A candidate starts a tool call; ``index`` counts the calls of one candidate from 0."""

    candidate: int
    index: int
    id: str
    name: str


@frozen
class ToolCallDelta:
    """More of the JSON text of a call's arguments, as the model writes it."""

    candidate: int
    index: int
    arguments: str


@frozen
class Finished:
    """A candidate is complete. ``reason`` is one of stop, length, tool_calls.

    :param reasoning_tokens: how many of its tokens were reasoning.
    :param stop: the stop string that ended it; "" for none.
    """

    candidate: int
    reason: str
    reasoning_tokens: int = 0
    stop: str = ""


@frozen
class Embedded:
    """The vectors of an :class:`EmbeddingPrompt`, in its order, as native float32."""

    candidate: int
    vectors: tuple[bytes, ...]


Event = (
    Admitted
    | PromptProgress
    | TextDelta
    | ReasoningDelta
    | ToolCallStarted
    | ToolCallDelta
    | Embedded
    | Finished
)


@frozen
class EncodedPrompt:
    """A prompt as a model reads it: the text that its chat template writes, and the tokens."""

    text: str
    tokens: tuple[int, ...]


@frozen(kw_only=True)
class Usage:
    """The tokens and times of an answer. Tokens of all candidates are counted, the prompt once.

    :param cached_tokens: prompt tokens that were found in the prefix cache.
    :param draft_tokens: drafts that were computed; see :mod:`lmx_kernel.engine.drafts`.
    :param accepted_draft_tokens: those of them that are in the answer.
    :param draft_model: the id of the model that drafted for it, or was to; "" for none.
    :param queue_s: from the arrival of the request to its start.
    :param first_token_s: from the arrival to the first token; None if there is none yet.
    :param total_s: from the arrival to the end.
    """

    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    reasoning_tokens: int = 0
    draft_tokens: int = 0
    accepted_draft_tokens: int = 0
    draft_model: str = ""
    queue_s: float
    first_token_s: float | None
    total_s: float

    @classmethod
    def joined(cls, usages: Sequence[Usage]) -> Usage:
        """Return what several answers to one request cost together: tokens add up, and times are
        those of the slowest.

        :param usages: at least one.
        """
        if len(usages) == 1:
            return usages[0]
        firsts = [usage.first_token_s for usage in usages if usage.first_token_s is not None]
        return cls(
            prompt_tokens=sum(usage.prompt_tokens for usage in usages),
            cached_tokens=sum(usage.cached_tokens for usage in usages),
            completion_tokens=sum(usage.completion_tokens for usage in usages),
            reasoning_tokens=sum(usage.reasoning_tokens for usage in usages),
            draft_tokens=sum(usage.draft_tokens for usage in usages),
            accepted_draft_tokens=sum(usage.accepted_draft_tokens for usage in usages),
            draft_model=max(usage.draft_model for usage in usages),
            queue_s=max(usage.queue_s for usage in usages),
            first_token_s=max(firsts, default=None),
            total_s=max(usage.total_s for usage in usages),
        )


@frozen(kw_only=True)
class Embeddings:
    """Embeddings of texts, in the order of the texts: vectors of length 1.

    :param model: the catalogue id of the model that computed them.
    :param prompt_tokens: of all texts together.
    """

    model: str
    vectors: tuple[array[float], ...]
    prompt_tokens: int
