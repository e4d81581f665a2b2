"""Answers as messages of a channel."""

from __future__ import annotations

from typing import Any

import msgspec
from attrs import define, field

from lmx_kernel.types import (
    Event,
    Finished,
    PromptProgress,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallStarted,
    Usage,
)
from lmx_lmstudio_api.speed import DraftCounts, stop_reason, tokens_per_s

Messages = list[dict[str, Any]]
_BEGIN, _END = "<think>", "</think>"  # clients show them, or look for them in the whole text


@define
class PredictionRendering:
    """One answer, as its events come.

    :param max_tokens: of the request.
    :param hides_reasoning: clients that parse the answer take its whole text, with the reasoning.
    """

    max_tokens: int | None
    hides_reasoning: bool = False
    _progress: PromptProgress = field(factory=lambda: PromptProgress(0, 0, 0, 0), init=False)
    _tokens: int = field(default=0, init=False)
    _is_thinking: bool = field(default=False, init=False)
    _call: ToolCallStarted | None = field(default=None, init=False)
    _arguments: list[str] = field(factory=list, init=False)
    _finished: Finished = field(factory=lambda: Finished(0, "stop"), init=False)

    def add(self, event: Event) -> Messages:
        """Return the messages for the next event of the answer."""
        match event:
            case PromptProgress():
                self._progress = event
                return self.progress()
            case TextDelta():
                self._tokens += len(event.tokens)
                return [*self._think(is_on=False), self._fragment(event.text)] if event.text else []
            case ReasoningDelta() if event.text and not self.hides_reasoning:
                return [*self._think(is_on=True), self._fragment(event.text, "reasoning")]
            case ToolCallStarted() | ToolCallDelta():
                return self._tool_call(event)
            case Finished():
                self._finished = event
                return [*self._think(is_on=False), *self._call_end()]
            case _:
                return []

    def progress(self) -> Messages:
        """Return how much of the prompt is read, as a sign of life too."""
        last = self._progress
        details = {
            "cachedTokenCount": last.cached,
            "totalPromptTokenCount": last.total,
            "processedPromptTokenCount": last.processed,
            "unprocessedPromptTokenCount": last.total - last.processed,
        }
        share = last.processed / last.total if last.total else 0.0
        return [{"type": "promptProcessingProgress", "progress": share, "details": details}]

    def stats(self, usage: Usage, *, is_cancelled: bool) -> dict[str, Any]:
        """Return what the answer cost, and why it ended."""
        reason: str = "userStopped"
        if not is_cancelled:
            finished = self._finished
            reason = stop_reason(finished.reason, finished.stop, usage, self.max_tokens)
        stats: dict[str, Any] = {
            "stopReason": reason,
            "tokensPerSecond": tokens_per_s(usage),
            "totalTimeSec": usage.total_s,
            "promptTokensCount": usage.prompt_tokens,
            "predictedTokensCount": usage.completion_tokens,
            "totalTokensCount": usage.prompt_tokens + usage.completion_tokens,
        }
        if usage.first_token_s is not None:
            stats["timeToFirstTokenSec"] = usage.first_token_s
        if (drafts := DraftCounts.of(usage)) is not None:
            stats["totalDraftTokensCount"] = drafts.total
            stats["acceptedDraftTokensCount"] = drafts.accepted
            stats["rejectedDraftTokensCount"] = drafts.rejected
            stats["ignoredDraftTokensCount"] = 0
        if usage.draft_model:
            stats["usedDraftModelKey"] = usage.draft_model
        if self._finished.stop:
            stats["stopString"] = self._finished.stop
        return stats

    def _fragment(self, text: str, kind: str = "none") -> dict[str, Any]:
        tokens, self._tokens = self._tokens, 0
        fragment = {
            "content": text,
            "tokensCount": tokens,
            "containsDrafted": False,
            "reasoningType": kind,
            "isStructural": False,
        }
        return {"type": "fragment", "fragment": fragment}

    def _think(self, *, is_on: bool) -> Messages:
        """Return the mark that begins or ends the reasoning, where it does."""
        if is_on == self._is_thinking:
            return []
        self._is_thinking = is_on
        kind = "reasoningStartTag" if is_on else "reasoningEndTag"
        return [self._fragment(_BEGIN if is_on else _END, kind)]

    def _tool_call(self, event: ToolCallStarted | ToolCallDelta) -> Messages:
        if isinstance(event, ToolCallDelta):
            self._arguments.append(event.arguments)
            kind = "toolCallGenerationArgumentFragmentGenerated"
            return [{"type": kind, "content": event.arguments}]
        ended = [*self._think(is_on=False), *self._call_end()]
        self._call = event
        return [
            *ended,
            {"type": "toolCallGenerationStart", "toolCallId": event.id},
            {"type": "toolCallGenerationNameReceived", "name": event.name},
        ]

    def _call_end(self) -> Messages:
        """Return the end of the call that is open, if one is."""
        if self._call is None:
            return []
        call, raw = self._call, "".join(self._arguments)
        self._call, self._arguments = None, []
        try:
            arguments = msgspec.json.decode(raw or "{}", type=dict[str, Any])
        except msgspec.DecodeError:
            title = f"The arguments of the call of {call.name} are no JSON object."
            error = {"title": title, "rootTitle": title}
            return [{"type": "toolCallGenerationFailed", "error": error, "rawContent": raw}]
        request = {"type": "function", "id": call.id, "name": call.name, "arguments": arguments}
        return [{"type": "toolCallGenerationEnd", "toolCallRequest": request, "rawContent": raw}]
