"""Events to the objects of this dialect."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import msgspec
from attrs import define, field, frozen

from lmx_kernel.dialect.collected import CollectedAnswer
from lmx_kernel.interfaces import Answer
from lmx_kernel.types import (
    Event,
    Finished,
    Logprobs,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallStarted,
    Usage,
)
from lmx_openai_api.objects import Head, UsageObject

JsonObject = Mapping[str, Any]
NonText = ReasoningDelta | ToolCallStarted | ToolCallDelta
LEAST_LOGPROB = -9999.0  # JSON has no -inf


class Rendering(Protocol):
    """How one kind of completion looks. ``index`` is the choice's; choices are JSON objects."""

    id_prefix: str
    kind: str
    chunk_kind: str

    @property
    def head(self) -> JsonObject:
        """Fields of every object, beside those of all kinds."""
        ...

    def opening(self, index: int) -> JsonObject | None:
        """Return the choice of a stream's first chunk, sent before any text is there."""
        ...

    def delta(self, index: int, text: str, logprobs: Sequence[Logprobs]) -> JsonObject:
        """Return the choice of a chunk with more text."""
        ...

    def non_text(self, index: int, event: NonText) -> JsonObject | None:
        """Return the choice of a chunk with more reasoning, or more of a call."""
        ...

    def finish(self, index: int, reason: str, logprobs: Sequence[Logprobs]) -> JsonObject:
        """Return the choice of a chunk that says why the text ends."""
        ...

    def whole(self, index: int, answer: CollectedAnswer) -> JsonObject:
        """Return the choice of a complete object."""
        ...


def finite(logprob: float) -> float:
    """Return ``logprob``, or :data:`LEAST_LOGPROB` for minus infinity."""
    return max(logprob, LEAST_LOGPROB)


# --- what is around the choices ---


@frozen
class Envelope:
    """The fields that every object of one answer shares."""

    answer: Answer
    rendering: Rendering
    created: int = field(factory=lambda: int(time.time()))

    def whole(self, choices: list[JsonObject], usage: Usage) -> JsonObject:
        """Return a complete object."""
        return {
            **self._fields(self.rendering.kind),
            "choices": choices,
            "usage": usage_object(usage),
        }

    def chunk_head(self) -> bytes:
        """Return a chunk's JSON up to its first choice."""
        fields = msgspec.json.encode(self._fields(self.rendering.chunk_kind))
        return fields[:-1] + b',"choices":['

    def _fields(self, kind: str) -> JsonObject:
        head: Head = {
            "id": self.rendering.id_prefix + self.answer.id,
            "created": self.created,
            "model": self.answer.model,
            "system_fingerprint": self.answer.fingerprint or None,
        }
        return {"object": kind, **head, **self.rendering.head}


def usage_object(usage: Usage) -> UsageObject:
    """Return the ``usage`` of an answer."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning_tokens,
            "accepted_prediction_tokens": usage.accepted_draft_tokens,
            "rejected_prediction_tokens": usage.draft_tokens - usage.accepted_draft_tokens,
        },
    }


# --- from events ---


@define
class Chunker:
    """Turns events into the choices of chunks.

    Logprobs of tokens whose text is not complete yet go with the choice's next chunk.
    """

    rendering: Rendering
    _held: defaultdict[int, list[Logprobs]] = field(factory=lambda: defaultdict(list))

    def choice(self, event: Event) -> JsonObject | None:
        """Return the choice to send for ``event``, if there is one."""
        if isinstance(event, TextDelta):
            self._held[event.candidate].extend(event.logprobs)
            if event.text:
                logprobs = self._held.pop(event.candidate)
                return self.rendering.delta(event.candidate, event.text, logprobs)
        elif isinstance(event, Finished):
            logprobs = self._held.pop(event.candidate, [])
            return self.rendering.finish(event.candidate, event.reason, logprobs)
        elif isinstance(event, NonText):
            return self.rendering.non_text(event.candidate, event)
        return None
