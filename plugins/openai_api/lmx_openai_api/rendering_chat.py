"""Answers to conversations, as ``chat.completion`` and its chunks."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen

from lmx_kernel.dialect.collected import CollectedAnswer
from lmx_kernel.types import (
    Logprobs,
    ReasoningDelta,
    TokenLogprob,
    ToolCall,
    ToolCallDelta,
    ToolCallStarted,
)
from lmx_openai_api.objects import (
    AnswerMessage,
    CallDelta,
    CallObject,
    ChatChoice,
    ChatChunkChoice,
    ChatLogprobs,
    Delta,
    FunctionObject,
    Token,
)
from lmx_openai_api.rendering import JsonObject, NonText, finite


@frozen
class ChatRendering:
    """``chat.completion`` and its chunks.

    :param service_tier: what the client got; None where it asked for none.
    """

    with_logprobs: bool
    service_tier: str | None = None
    id_prefix = "chatcmpl-"
    kind = "chat.completion"
    chunk_kind = "chat.completion.chunk"

    @property
    def head(self) -> JsonObject:
        """Fields of every object."""
        return {} if self.service_tier is None else {"service_tier": self.service_tier}

    def opening(self, index: int) -> ChatChunkChoice:
        """Return the choice with the role."""
        return self._chunk(index, {"role": "assistant", "content": ""}, None, None)

    def delta(self, index: int, text: str, logprobs: Sequence[Logprobs]) -> ChatChunkChoice:
        """Add text."""
        return self._chunk(index, {"content": text}, None, self._logprobs(logprobs))

    def non_text(self, index: int, event: NonText) -> ChatChunkChoice:
        """Add to the reasoning, or to a call."""
        return self._chunk(index, _delta(event), None, None)

    def finish(self, index: int, reason: str, logprobs: Sequence[Logprobs]) -> ChatChunkChoice:
        """End a choice."""
        return self._chunk(index, {}, reason, self._logprobs(logprobs) if logprobs else None)

    def whole(self, index: int, answer: CollectedAnswer) -> ChatChoice:
        """Return a message."""
        return {
            "index": index,
            "message": _message(answer),
            "logprobs": self._logprobs(answer.logprobs),
            "finish_reason": answer.reason,
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


def _message(answer: CollectedAnswer) -> AnswerMessage:
    calls = list(map(_call, answer.calls))
    content = answer.text or (None if calls else "")
    message: AnswerMessage = {"role": "assistant", "content": content, "refusal": None}
    if reasoning := answer.reasoning:
        message["reasoning_content"] = reasoning
    if calls:
        message["tool_calls"] = calls
    return message


def _call(call: ToolCall) -> CallObject:
    function: FunctionObject = {"name": call.name, "arguments": call.arguments}
    return {"id": call.id, "type": "function", "function": function}


def _delta(event: NonText) -> Delta:
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


def _token(token: TokenLogprob) -> Token:
    return {
        "token": token.text.decode(errors="replace"),
        "logprob": finite(token.logprob),
        "bytes": list(token.text),
    }
