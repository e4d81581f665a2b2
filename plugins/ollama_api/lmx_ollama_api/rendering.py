"""Events to the objects of this dialect."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import count
from typing import Any

import msgspec
from attrs import frozen

from lmx_kernel.dialect.collected import CollectedAnswer
from lmx_kernel.types import Logprobs, TokenLogprob, ToolCall, Usage
from lmx_ollama_api.objects import AnswerMessage, CallObject, Token, TokenChoice

JsonObject = Mapping[str, Any]
_REASONS = {"tool_calls": "stop"}
_LEAST_LOGPROB = -9999.0  # JSON has no -inf


@frozen(kw_only=True)
class Said:
    """What an answer says, or a piece of it.

    :ivar calls: complete.
    :ivar calls_before: how many calls the answer had before these.
    """

    text: str = ""
    thinking: str = ""
    calls: Sequence[ToolCall] = ()
    calls_before: int = 0


Shape = Callable[[Said], JsonObject]
"""Returns the fields of a line that say something."""


def chat_shape(said: Said) -> JsonObject:
    """Return a message of ``/api/chat``."""
    calls = list(filter(None, map(_call, count(said.calls_before), said.calls)))
    message: AnswerMessage = {"role": "assistant", "content": said.text + _unreadable(said.calls)}
    if said.thinking:
        message["thinking"] = said.thinking
    if calls:
        message["tool_calls"] = calls
    return {"message": message}


def generate_shape(said: Said) -> JsonObject:
    """Return a response of ``/api/generate``."""
    thinking = {"thinking": said.thinking} if said.thinking else {}
    return {"response": said.text, **thinking}


@frozen(kw_only=True)
class Rendering:
    """Renders the lines of one answer.

    :param model: its name, as the client wrote it.
    :param with_logprobs: whether the client asked for them.
    """

    model: str
    shape: Shape
    with_logprobs: bool = False

    def line(self, said: Said, logprobs: Sequence[Logprobs] = ()) -> JsonObject:
        """Return a line of a stream."""
        return {**self._head(said), "done": False, **self._logprobs(logprobs)}

    def whole(self, answer: CollectedAnswer, usage: Usage) -> JsonObject:
        """Return an answer that is not streamed."""
        said = Said(text=answer.text, thinking=answer.reasoning, calls=answer.calls)
        return self.last(said, answer.reason, usage, answer.logprobs)

    def last(
        self, said: Said, reason: str, usage: Usage, logprobs: Sequence[Logprobs] = ()
    ) -> JsonObject:
        """Return the last line of a stream."""
        ended = {"done": True, "done_reason": _REASONS.get(reason, reason)}
        return {**self._head(said), **ended, **_figures(usage), **self._logprobs(logprobs)}

    def without_answer(self, reason: str) -> JsonObject:
        """Return what stands for an answer where a model was only loaded or unloaded."""
        return {**self._head(Said()), "done": True, "done_reason": reason}

    def _head(self, said: Said) -> JsonObject:
        return {"model": self.model, "created_at": rfc3339(datetime.now(UTC)), **self.shape(said)}

    def _logprobs(self, logprobs: Sequence[Logprobs]) -> JsonObject:
        if not self.with_logprobs or not logprobs:
            return {}
        return {"logprobs": [_choice(entry) for entry in logprobs]}


def rfc3339(time: datetime) -> str:
    """Return a time as RFC 3339 has it.

    :param time: in UTC.
    """
    return f"{time.replace(tzinfo=None).isoformat(timespec='microseconds')}Z"


def nanoseconds(seconds: float) -> int:
    """Return a duration, which is not negative, as this dialect counts it."""
    return max(round(seconds * 1e9), 0)


def _figures(usage: Usage) -> JsonObject:
    first_token_s = usage.total_s if usage.first_token_s is None else usage.first_token_s
    return {
        "total_duration": nanoseconds(usage.total_s),
        "load_duration": nanoseconds(usage.queue_s),
        "prompt_eval_count": usage.prompt_tokens,
        "prompt_eval_duration": nanoseconds(first_token_s - usage.queue_s),
        "eval_count": usage.completion_tokens,
        "eval_duration": nanoseconds(usage.total_s - first_token_s),
    }


# --- calls ---


def _call(index: int, call: ToolCall) -> CallObject | None:
    """Return a call; None where its arguments are no JSON object, which clients could not take."""
    try:
        arguments = msgspec.json.decode(call.arguments or "{}", type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None
    function = {"index": index, "name": call.name, "arguments": arguments}
    return {"id": call.id, "function": function}  # type: ignore[typeddict-item]


def _unreadable(calls: Sequence[ToolCall]) -> str:
    """Return the text of calls that cannot be sent as such: cut off, or nonsense."""
    return "".join(f"{call.name}({call.arguments})" for call in calls if _call(0, call) is None)


# --- logprobs ---


def _choice(entry: Logprobs) -> TokenChoice:
    top = {"top_logprobs": [_token(token) for token in entry.top]} if entry.top else {}
    return {**_token(entry.chosen), **top}  # type: ignore[typeddict-item]


def _token(token: TokenLogprob) -> Token:
    return {
        "token": token.text.decode(errors="replace"),
        "logprob": max(token.logprob, _LEAST_LOGPROB),
        "bytes": list(token.text),
    }
