"""How fast an answer was, and why it ended."""

from __future__ import annotations

from typing import Literal

from attrs import frozen

from lmx_kernel.types import Usage

StopReason = Literal[
    "eosFound",
    "stopStringFound",
    "toolCalls",
    "maxPredictedTokensReached",
    "contextLengthReached",
]


@frozen
class DraftCounts:
    """Tokens that were guessed: those that were right, and those that were wrong. None is left out
    once it was guessed.
    """

    total: int
    accepted: int

    @classmethod
    def of(cls, usage: Usage) -> DraftCounts | None:
        """Return those of an answer; None where nothing was to be guessed."""
        if not (usage.draft_model or usage.draft_tokens):
            return None
        return cls(usage.draft_tokens, usage.accepted_draft_tokens)

    @property
    def rejected(self) -> int:
        """The wrong ones."""
        return self.total - self.accepted


def generation_s(usage: Usage) -> float:
    """Return the seconds from the first token to the end; 0 if there was none."""
    if usage.first_token_s is None:
        return 0.0
    return max(usage.total_s - usage.first_token_s, 0.0)


def tokens_per_s(usage: Usage) -> float:
    """Return how many tokens came in a second; 0 if they came too fast to tell, or none came."""
    seconds = generation_s(usage)
    return usage.completion_tokens / seconds if seconds else 0.0


def stop_reason(reason: str, stop: str, usage: Usage, max_tokens: int | None) -> StopReason:
    """Return why an answer ended.

    :param reason: as :class:`~lmx_kernel.types.Finished` has it, like ``stop``.
    :param max_tokens: of the request.
    """
    if reason == "tool_calls":
        return "toolCalls"
    if reason == "length":
        is_cut = max_tokens is not None and usage.completion_tokens >= max_tokens
        return "maxPredictedTokensReached" if is_cut else "contextLengthReached"
    return "stopStringFound" if stop else "eosFound"
