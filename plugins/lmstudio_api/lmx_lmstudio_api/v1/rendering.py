"""Answers as chats of ``/api/v1``: the events of a stream, and the whole at its end."""

from __future__ import annotations

from attrs import define, field

from lmx_kernel.errors import LmxError
from lmx_kernel.events import LoadProgressed, LoadStarted
from lmx_kernel.types import Event, PromptProgress, ReasoningDelta, TextDelta, Usage
from lmx_lmstudio_api.speed import tokens_per_s
from lmx_lmstudio_api.v1.chat_objects import (
    ChatEvent,
    ChatResult,
    ChatStats,
    OutputItem,
    OutputKind,
)
from lmx_lmstudio_api.v1.errors import error_object
from lmx_lmstudio_api.v1.load_watch import LoadEvent


@define
class ChatRendering:
    """One answer, as its events come. Each method returns events of this API.

    :param model: the id of the model that answers.
    """

    model: str
    _load: str = ""
    _prompt: str = ""
    _pieces: list[tuple[OutputKind, list[str]]] = field(factory=list)
    _is_open: bool = False
    _load_s: float | None = None

    def open(self) -> list[ChatEvent]:
        """Begin the answer."""
        return [{"type": "chat.start", "model_instance_id": self.model}]

    def load(self, event: LoadEvent) -> list[ChatEvent]:
        """Take news of the model's load."""
        events: list[ChatEvent] = []
        if self._load != "running":  # it may have begun before this request came
            self._load = "running"
            events.append({"type": "model_load.start", "model_instance_id": self.model})
        if isinstance(event, LoadStarted):
            return events
        if isinstance(event, LoadProgressed):
            progress: ChatEvent = {
                "type": "model_load.progress",
                "model_instance_id": self.model,
                "progress": event.share,
            }
            return [*events, progress]
        self._load, self._load_s = "done", event.load_s
        end: ChatEvent = {
            "type": "model_load.end",
            "model_instance_id": self.model,
            "load_time_seconds": event.load_s,
        }
        return [*events, end]

    def add(self, event: Event) -> list[ChatEvent]:
        """Take the next event of the answer."""
        match event:
            case PromptProgress():
                share = event.processed / event.total if event.total else 1.0
                progress: ChatEvent = {"type": "prompt_processing.progress", "progress": share}
                return [*self._prompt_begun(), progress] if self._prompt != "done" else []
            case ReasoningDelta() if event.text:
                return self._text("reasoning", event.text)
            case TextDelta() if event.text:
                return self._text("message", event.text)
        return []

    def end(self, usage: Usage, response_id: str | None) -> list[ChatEvent]:
        """End a complete answer.

        :param response_id: None if it is not kept.
        """
        result = self.result(usage, response_id)
        return [*self._prompt_ended(), *self._closed(), {"type": "chat.end", "result": result}]

    def fail(self, error: LmxError, usage: Usage) -> list[ChatEvent]:
        """End an answer after an error; what was said before is in its result."""
        return [
            *self._closed(),
            {"type": "error", "error": error_object(error)["error"]},
            {"type": "chat.end", "result": self.result(usage, None)},
        ]

    def result(self, usage: Usage, response_id: str | None) -> ChatResult:
        """Return the whole answer so far."""
        result: ChatResult = {
            "model_instance_id": self.model,
            "output": [_item(kind, pieces) for kind, pieces in self._pieces],
            "stats": self._stats(usage),
        }
        if response_id is not None:
            result["response_id"] = response_id
        return result

    def _stats(self, usage: Usage) -> ChatStats:
        stats: ChatStats = {
            "input_tokens": usage.prompt_tokens,
            "total_output_tokens": usage.completion_tokens,
            "reasoning_output_tokens": usage.reasoning_tokens,
            "tokens_per_second": tokens_per_s(usage),
            "time_to_first_token_seconds": usage.first_token_s or 0.0,
        }
        if self._load_s is not None:
            stats["model_load_time_seconds"] = self._load_s
        return stats

    # --- the parts of an answer ---

    def _text(self, kind: OutputKind, text: str) -> list[ChatEvent]:
        events = self._prompt_ended()
        if not self._is_open or self._pieces[-1][0] != kind:
            events += self._closed()
            self._pieces.append((kind, []))
            self._is_open = True
            events.append({"type": f"{kind}.start"})  # type: ignore[typeddict-item]
        self._pieces[-1][1].append(text)
        return [*events, {"type": f"{kind}.delta", "content": text}]  # type: ignore[typeddict-item]

    def _closed(self) -> list[ChatEvent]:
        """End the text that is open, if one is."""
        if not self._is_open:
            return []
        self._is_open = False
        return [{"type": f"{self._pieces[-1][0]}.end"}]  # type: ignore[typeddict-item]

    def _prompt_begun(self) -> list[ChatEvent]:
        if self._prompt:
            return []
        self._prompt = "running"
        return [{"type": "prompt_processing.start"}]

    def _prompt_ended(self) -> list[ChatEvent]:
        if self._prompt == "done":
            return []
        events = self._prompt_begun()
        self._prompt = "done"
        return [*events, {"type": "prompt_processing.end"}]


def _item(kind: OutputKind, pieces: list[str]) -> OutputItem:
    return {"type": kind, "content": "".join(pieces)}
