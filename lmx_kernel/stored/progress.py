"""How far an answer is that is computed in the background, over all runs of the daemon."""

from __future__ import annotations

from collections.abc import Iterable

from attrs import define, evolve, field

from lmx_kernel.stored.file import Unfinished
from lmx_kernel.types import (
    Admitted,
    Event,
    Finished,
    GenerationRequest,
    PromptProgress,
    TextDelta,
    Usage,
)


@define
class Progress:
    """What an answer said so far, and what of it is not on disk yet. Events are added by whole
    steps of the engine, so the answer goes on after exactly the tokens of its last event.

    :param request: as it was when the answer was started.
    :param created_at: in seconds since the epoch.
    :ivar written: how many events are on disk, or about to be.
    :ivar unwritten: those that are not.
    :ivar earlier: what earlier runs cost.
    :ivar is_finished: it said all.
    """

    request: GenerationRequest
    created_at: float
    earlier: Usage | None = None
    written: int = 0
    unwritten: list[Event] = field(factory=list)
    is_finished: bool = False
    _tokens: list[int] = field(factory=list)
    _prompt_tokens: int = -1  # of the prompt, that were processed by the last event on it
    _is_admitted: bool = False

    @classmethod
    def of(cls, kept: Unfinished) -> Progress:
        """Return the progress of an answer of which this is on disk."""
        progress = cls(kept.request, kept.created_at, kept.usage)
        progress.add(kept.events)
        progress.take()
        return progress

    @property
    def resumed_request(self) -> GenerationRequest:
        """The request that goes on after what was said so far."""
        return evolve(self.request, said=(*self.request.said, *self._tokens))

    def add(self, events: Iterable[Event]) -> None:
        """Add whole steps; what an earlier run said already is left out: that the request passed
        its checks, and that the prompt is processed.
        """
        for event in events:
            if self._is_new(event):
                self.unwritten.append(event)

    def take(self) -> tuple[int, list[Event]]:
        """Return the events that are to be written now, and the number of the first."""
        first, events = self.written, self.unwritten
        self.written, self.unwritten = first + len(events), []
        return first, events

    def usage(self, latest: Usage, began_at: float) -> Usage:
        """Return what all runs cost together.

        :param latest: what the last run cost, the tokens that were said before included.
        :param began_at: when it began, in seconds since the epoch.
        """
        before_s = max(0.0, began_at - self.created_at)
        first_s, earlier = latest.first_token_s, self.earlier
        usage = evolve(
            latest,
            queue_s=before_s + latest.queue_s,
            first_token_s=None if first_s is None else before_s + first_s,
            total_s=before_s + latest.total_s,
        )
        if earlier is None or earlier.first_token_s is None:
            return usage
        return evolve(
            usage,
            cached_tokens=earlier.cached_tokens,
            draft_tokens=earlier.draft_tokens + latest.draft_tokens,
            accepted_draft_tokens=earlier.accepted_draft_tokens + latest.accepted_draft_tokens,
            draft_model=latest.draft_model or earlier.draft_model,
            queue_s=earlier.queue_s,
            first_token_s=earlier.first_token_s,
        )

    def _is_new(self, event: Event) -> bool:
        if isinstance(event, Admitted):
            was_admitted, self._is_admitted = self._is_admitted, True
            return not was_admitted
        if isinstance(event, PromptProgress):
            is_new = event.processed > self._prompt_tokens and not self._tokens
            self._prompt_tokens = max(self._prompt_tokens, event.processed)
            return is_new
        if isinstance(event, TextDelta):
            self._tokens += event.tokens
        elif isinstance(event, Finished):
            self.is_finished = True
        return True
