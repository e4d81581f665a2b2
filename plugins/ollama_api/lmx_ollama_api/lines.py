"""Answers as lines of JSON (NDJSON)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from attrs import define, field

from lmx_kernel.dialect.collected import CollectedAnswer
from lmx_kernel.errors import LmxError
from lmx_kernel.http.sse import FrameWriter
from lmx_kernel.types import (
    Event,
    Finished,
    Logprobs,
    ReasoningDelta,
    TextDelta,
    ToolCall,
    ToolCallDelta,
    ToolCallStarted,
    Usage,
)
from lmx_ollama_api.rendering import Rendering, Said

NDJSON = "application/x-ndjson"


def encode_line(value: Mapping[str, Any]) -> bytes:
    """Return a line."""
    return msgspec.json.encode(value) + b"\n"


def error_line(error: LmxError) -> bytes:
    """Return the last line of what failed."""
    return encode_line({"error": error.message})


@define(kw_only=True)
class LineWriter(FrameWriter):
    """Writes one answer as lines: text as it comes, and each call when it is complete.

    Logprobs of tokens whose text is not complete yet go with the next line.
    """

    rendering: Rendering
    _calls: CollectedAnswer = field(factory=CollectedAnswer)
    _sent_calls: int = 0
    _held: list[Logprobs] = field(factory=list)
    _reason: str = "stop"

    def event(self, event: Event) -> bytes:
        """Return the lines for an event, if it has any."""
        match event:
            case TextDelta():
                self._held.extend(event.logprobs)
                return self._said(Said(text=event.text)) if event.text else b""
            case ReasoningDelta():
                return self._said(Said(thinking=event.text)) if event.text else b""
            case ToolCallStarted() | ToolCallDelta():
                lines = self._complete_calls() if isinstance(event, ToolCallStarted) else b""
                self._calls.add(event)
                return lines
            case Finished():
                self._reason = event.reason
                return self._complete_calls()
        return b""

    def heartbeat(self) -> bytes:
        """Return a line that says nothing: every line must be an object of the answer."""
        return encode_line(self.rendering.line(Said()))

    def failure(self, error: LmxError) -> bytes:
        """Return the line of an error."""
        return error_line(error)

    def closing(self, usage: Usage) -> bytes:
        """Return the line that ends the answer."""
        return encode_line(self.rendering.last(Said(), self._reason, usage, self._take_logprobs()))

    def _said(self, said: Said) -> bytes:
        complete = self._complete_calls()
        return complete + encode_line(self.rendering.line(said, self._take_logprobs()))

    def _complete_calls(self) -> bytes:
        calls: Sequence[ToolCall] = self._calls.calls[self._sent_calls :]
        if not calls:
            return b""
        said = Said(calls=calls, calls_before=self._sent_calls)
        self._sent_calls += len(calls)
        return encode_line(self.rendering.line(said, self._take_logprobs()))

    def _take_logprobs(self) -> list[Logprobs]:
        taken, self._held = self._held, []
        return taken
