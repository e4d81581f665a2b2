"""Events to the objects of this dialect."""

from __future__ import annotations

import codecs
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import msgspec
from attrs import define, field, frozen

from lmx_kernel.runtime.answer import Reading
from lmx_kernel.types import (
    Event,
    Finished,
    Logprobs,
    ReasoningDelta,
    TextDelta,
    TokenLogprob,
    ToolCall,
    ToolCallDelta,
    ToolCallStarted,
    Usage,
)
from lmx_openai_api.objects import (
    AnswerMessage,
    CallDelta,
    CallObject,
    ChatChoice,
    ChatChunkChoice,
    ChatLogprobs,
    CompletionChoice,
    CompletionLogprobs,
    Delta,
    FunctionObject,
    Head,
    Token,
    UsageObject,
)
from lmx_openai_api.said import Said

JsonObject = Mapping[str, Any]
Aside = ReasoningDelta | ToolCallStarted | ToolCallDelta
LEAST_LOGPROB = -9999.0  # JSON has no -inf


class Rendering(Protocol):
    """How one kind of completion looks. ``index`` is the choice's; choices are JSON objects."""

    id_prefix: str
    kind: str
    chunk_kind: str

    def opening(self, index: int) -> JsonObject | None:
        """Return the choice of a stream's first chunk, sent before any text is there."""
        ...

    def delta(self, index: int, text: str, logprobs: Sequence[Logprobs]) -> JsonObject:
        """Return the choice of a chunk with more text."""
        ...

    def aside(self, index: int, event: Aside) -> JsonObject | None:
        """Return the choice of a chunk with more of what is no text."""
        ...

    def finish(self, index: int, reason: str, logprobs: Sequence[Logprobs]) -> JsonObject:
        """Return the choice of a chunk that says why the text ends."""
        ...

    def whole(self, index: int, said: Said) -> JsonObject:
        """Return the choice of a complete object."""
        ...


# --- the two kinds ---


@frozen
class ChatRendering:
    """``chat.completion`` and its chunks."""

    with_logprobs: bool
    id_prefix = "chatcmpl-"
    kind = "chat.completion"
    chunk_kind = "chat.completion.chunk"

    def opening(self, index: int) -> ChatChunkChoice:
        """Say who speaks."""
        return self._chunk(index, {"role": "assistant", "content": ""}, None, None)

    def delta(self, index: int, text: str, logprobs: Sequence[Logprobs]) -> ChatChunkChoice:
        """Add text."""
        return self._chunk(index, {"content": text}, None, self._logprobs(logprobs))

    def aside(self, index: int, event: Aside) -> ChatChunkChoice:
        """Add to the reasoning, or to a call."""
        return self._chunk(index, _delta(event), None, None)

    def finish(self, index: int, reason: str, logprobs: Sequence[Logprobs]) -> ChatChunkChoice:
        """End a choice."""
        return self._chunk(index, {}, reason, self._logprobs(logprobs) if logprobs else None)

    def whole(self, index: int, said: Said) -> ChatChoice:
        """Return a message."""
        return {
            "index": index,
            "message": _message(said),
            "logprobs": self._logprobs(said.logprobs),
            "finish_reason": said.reason,
        }

    def _chunk(
        self, index: int, delta: Delta, reason: str | None, logprobs: ChatLogprobs | None
    ) -> ChatChunkChoice:
        return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": reason}

    def _logprobs(self, logprobs: Sequence[Logprobs]) -> ChatLogprobs | None:
        if not self.with_logprobs:
            return None
        return {
            "content": [
                {**_token(entry.chosen), "top_logprobs": [_token(token) for token in entry.top]}
                for entry in logprobs
            ],
            "refusal": None,
        }


def _message(said: Said) -> AnswerMessage:
    calls = list(map(_call, said.calls))
    content = said.text or (None if calls else "")
    message: AnswerMessage = {"role": "assistant", "content": content, "refusal": None}
    if reasoning := said.reasoning:
        message["reasoning_content"] = reasoning
    if calls:
        message["tool_calls"] = calls
    return message


def _call(call: ToolCall) -> CallObject:
    function: FunctionObject = {"name": call.name, "arguments": call.arguments}
    return {"id": call.id, "type": "function", "function": function}


def _delta(event: Aside) -> Delta:
    if isinstance(event, ReasoningDelta):
        return {"reasoning_content": event.text}
    return {"tool_calls": [_call_delta(event)]}


def _call_delta(event: ToolCallStarted | ToolCallDelta) -> CallDelta:
    """Return more of a call; only the first has its id and its name, since clients add them up."""
    if isinstance(event, ToolCallDelta):
        return {"index": event.index, "function": {"arguments": event.arguments}}
    return {
        "index": event.index,
        "id": event.id,
        "type": "function",
        "function": {"name": event.name, "arguments": ""},
    }


@define
class _Position:
    """Where in a choice's text the next token begins."""

    chars: int
    _decoder: codecs.IncrementalDecoder = field(
        factory=lambda: codecs.getincrementaldecoder("utf-8")("replace")
    )

    def advance(self, token: bytes) -> int:
        """Return where ``token`` begins, and move to its end."""
        begin = self.chars
        self.chars += len(self._decoder.decode(token))
        return begin


class CompletionRendering:
    """``text_completion``, whole and in chunks.

    :param echoes: the text to repeat before each choice's own; empty for none.
    """

    id_prefix = "cmpl-"
    kind = chunk_kind = "text_completion"

    def __init__(self, *, with_logprobs: bool, echoes: Sequence[str] = ()) -> None:
        self._with_logprobs = with_logprobs
        self._echoes = echoes
        self._positions: defaultdict[int, _Position] = defaultdict(lambda: _Position(0))

    def opening(self, index: int) -> CompletionChoice | None:
        """Repeat the prompt, if that was asked for."""
        return _choice(index, self._echoes[index], None, None) if self._echoes else None

    def delta(self, index: int, text: str, logprobs: Sequence[Logprobs]) -> CompletionChoice:
        """Add text."""
        return _choice(index, text, None, self._logprobs(index, logprobs))

    def aside(self, index: int, event: Aside) -> None:
        """Say nothing: in plain text everything is text."""

    def finish(self, index: int, reason: str, logprobs: Sequence[Logprobs]) -> CompletionChoice:
        """End a choice."""
        return _choice(index, "", reason, self._logprobs(index, logprobs) if logprobs else None)

    def whole(self, index: int, said: Said) -> CompletionChoice:
        """Return all of a choice."""
        echo = self._echoes[index] if self._echoes else ""
        return _choice(index, echo + said.text, said.reason, self._logprobs(index, said.logprobs))

    def _logprobs(self, index: int, logprobs: Sequence[Logprobs]) -> CompletionLogprobs | None:
        if not self._with_logprobs:
            return None
        position = self._positions[index]
        return {
            "tokens": [_legacy_text(entry.chosen) for entry in logprobs],
            "token_logprobs": [_finite(entry.chosen.logprob) for entry in logprobs],
            "top_logprobs": [_legacy_top(entry) for entry in logprobs],
            "text_offset": [position.advance(entry.chosen.text) for entry in logprobs],
        }


def _choice(
    index: int, text: str, reason: str | None, logprobs: CompletionLogprobs | None
) -> CompletionChoice:
    return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": reason}


def _finite(logprob: float) -> float:
    return max(logprob, LEAST_LOGPROB)


def _token(token: TokenLogprob) -> Token:
    return {
        "token": token.text.decode(errors="replace"),
        "logprob": _finite(token.logprob),
        "bytes": list(token.text),
    }


def _legacy_text(token: TokenLogprob) -> str:
    """Name a token: pieces of a character get a name of their own, since names are keys here."""
    try:
        return token.text.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in token.text)


def _legacy_top(entry: Logprobs) -> dict[str, float]:
    return {_legacy_text(token): _finite(token.logprob) for token in (*entry.top, entry.chosen)}


# --- what is around the choices ---


@frozen
class Envelope:
    """The fields that every object of one answer shares."""

    id: str
    model: str
    rendering: Rendering
    created: int = field(factory=lambda: int(time.time()))

    @classmethod
    def of(cls, answer: Reading, rendering: Rendering) -> Envelope:
        """Return the envelope for ``answer``."""
        return cls(rendering.id_prefix + answer.id, answer.model, rendering)

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
            "id": self.id,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.model,
        }
        return {"object": kind, **head}


def usage_object(usage: Usage) -> UsageObject:
    """Return the ``usage`` of an answer."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
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
        elif isinstance(event, Aside):
            return self.rendering.aside(event.candidate, event)
        return None
