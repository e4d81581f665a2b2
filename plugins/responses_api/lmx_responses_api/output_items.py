"""What the model produces, item by item: each as events while it grows, and as an object."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, cast

from attrs import define, field

from lmx_kernel.dialect.fields import JsonObject
from lmx_kernel.types import Logprobs, TokenLogprob
from lmx_responses_api.objects import ChosenToken, ItemStatus, OutputItem, OutputPart, TokenObject
from lmx_responses_api.sealed import seal
from lmx_responses_api.string_field import StringField

LEAST_LOGPROB = -9999.0  # JSON has no -inf

Events = Iterator[JsonObject]
"""Events of this dialect without their numbers."""


@define(kw_only=True)
class GrowingItem(ABC):
    """An item that the model is producing.

    :ivar index: its place in the output.
    """

    id: str
    index: int
    status: ItemStatus = "in_progress"

    @abstractmethod
    def object(self) -> OutputItem:
        """Return the item as it is now."""

    def opened(self) -> Events:
        """Yield the events of its beginning."""
        yield self._of_item("added")

    @abstractmethod
    def add(self, text: str, logprobs: Sequence[Logprobs] = ()) -> Events:
        """Add text, and yield the events of it."""

    @abstractmethod
    def _finished(self) -> Events:
        """Yield the events that end what it consists of."""

    def closed(self, status: ItemStatus) -> Events:
        """Yield the events of its end."""
        yield from self._finished()
        self.status = status
        yield self._of_item("done")

    def _event(self, kind: str, **fields: Any) -> JsonObject:
        place = {"item_id": self.id, "output_index": self.index}
        return {"type": f"response.{kind}", **place, **fields}

    def _of_item(self, what: str) -> JsonObject:
        kind = f"response.output_item.{what}"
        return {"type": kind, "output_index": self.index, "item": self.object()}


@define(kw_only=True)
class MessageItem(GrowingItem):
    """The text for the user.

    :ivar with_logprobs: whether it has the probabilities of its tokens.
    """

    with_logprobs: bool
    _text: list[str] = field(factory=list)
    _logprobs: list[ChosenToken] = field(factory=list)
    _has_part: bool = False

    def object(self) -> OutputItem:
        """Return the message; it has its part as soon as that was announced."""
        return {
            "type": "message",
            "id": self.id,
            "status": self.status,
            "role": "assistant",
            "content": [self._part()] if self._has_part else [],
        }

    def opened(self) -> Events:
        """Yield the events of the message, and of its only part."""
        yield from super().opened()
        yield self._event("content_part.added", content_index=0, part=self._part())
        self._has_part = True

    def add(self, text: str, logprobs: Sequence[Logprobs] = ()) -> Events:
        """Add text with its tokens."""
        tokens = list(map(_chosen, logprobs)) if self.with_logprobs else []
        self._text.append(text)
        self._logprobs += tokens
        yield self._event("output_text.delta", content_index=0, delta=text, logprobs=tokens)

    def _finished(self) -> Events:
        text = "".join(self._text)
        yield self._event("output_text.done", content_index=0, text=text, logprobs=self._logprobs)
        yield self._event("content_part.done", content_index=0, part=self._part())

    def _part(self) -> OutputPart:
        return {
            "type": "output_text",
            "text": "".join(self._text),
            "annotations": [],
            "logprobs": list(self._logprobs),
        }


@define(kw_only=True)
class ReasoningItem(GrowingItem):
    """What the model thinks.

    :ivar with_summary: whether the reasoning is given as its own summary too.
    :ivar is_sealed: whether the whole has ``encrypted_content``.
    """

    with_summary: bool
    is_sealed: bool
    _text: list[str] = field(factory=list)
    _has_parts: bool = False

    def object(self) -> OutputItem:
        """Return the reasoning."""
        is_whole = self.status != "in_progress"
        has_summary = self.with_summary and self._has_parts
        text = "".join(self._text)
        return {
            "type": "reasoning",
            "id": self.id,
            "status": self.status,
            "summary": [_part("summary_text", text)] if has_summary else [],
            "content": [_part("reasoning_text", text)] if self._has_parts else [],
            "encrypted_content": seal(text) if self.is_sealed and is_whole else None,
        }

    def opened(self) -> Events:
        """Yield the events of the reasoning, and of its parts."""
        yield from super().opened()
        part = _part("reasoning_text", "")
        yield self._event("content_part.added", content_index=0, part=part)
        if self.with_summary:
            part = _part("summary_text", "")
            yield self._event("reasoning_summary_part.added", summary_index=0, part=part)
        self._has_parts = True

    def add(self, text: str, logprobs: Sequence[Logprobs] = ()) -> Events:
        """Add text."""
        self._text.append(text)
        yield self._event("reasoning_text.delta", content_index=0, delta=text)
        if self.with_summary:
            yield self._event("reasoning_summary_text.delta", summary_index=0, delta=text)

    def _finished(self) -> Events:
        text = "".join(self._text)
        yield self._event("reasoning_text.done", content_index=0, text=text)
        part = _part("reasoning_text", text)
        yield self._event("content_part.done", content_index=0, part=part)
        if self.with_summary:
            yield self._event("reasoning_summary_text.done", summary_index=0, text=text)
            part = _part("summary_text", text)
            yield self._event("reasoning_summary_part.done", summary_index=0, part=part)


@define(kw_only=True)
class CallItem(GrowingItem):
    """A call of a tool.

    :ivar namespace: of the tool; None for none.
    """

    call_id: str
    name: str
    namespace: str | None = None

    def _call(self, kind: str, **written: Any) -> OutputItem:
        space: Any = {} if self.namespace is None else {"namespace": self.namespace}
        call: Any = {"type": kind, "id": self.id, "status": self.status, "call_id": self.call_id}
        return cast(OutputItem, {**call, "name": self.name, **space, **written})


@define(kw_only=True)
class FunctionCallItem(CallItem):
    """A call of a function."""

    _arguments: list[str] = field(factory=list)

    def object(self) -> OutputItem:
        """Return the call."""
        return self._call("function_call", arguments="".join(self._arguments))

    def add(self, text: str, logprobs: Sequence[Logprobs] = ()) -> Events:
        """Add to the JSON text of the arguments."""
        self._arguments.append(text)
        yield self._event("function_call_arguments.delta", delta=text)

    def _finished(self) -> Events:
        arguments = "".join(self._arguments)
        yield self._event("function_call_arguments.done", name=self.name, arguments=arguments)


@define(kw_only=True)
class CustomCallItem(CallItem):
    """A call of a custom tool.

    :ivar is_raw: the model writes the input itself, not the JSON of a function's arguments.
    """

    is_raw: bool = False
    _input: StringField = field(factory=StringField)

    def object(self) -> OutputItem:
        """Return the call."""
        return self._call("custom_tool_call", input=self._input.text)

    def add(self, text: str, logprobs: Sequence[Logprobs] = ()) -> Events:
        """Add what the model wrote."""
        if self.is_raw:
            self._input.text += text
        else:
            text = self._input.add(text)
        if text:
            yield self._event("custom_tool_call_input.delta", delta=text)

    def _finished(self) -> Events:
        missing = "" if self.is_raw else self._input.finish()
        if missing:
            yield self._event("custom_tool_call_input.delta", delta=missing)
        yield self._event("custom_tool_call_input.done", input=self._input.text)


def _part(kind: str, text: str) -> OutputPart:
    return {"type": kind, "text": text}


def _chosen(entry: Logprobs) -> ChosenToken:
    return {**_token(entry.chosen), "top_logprobs": list(map(_token, entry.top))}


def _token(token: TokenLogprob) -> TokenObject:
    return {
        "token": token.text.decode(errors="replace"),
        "logprob": max(token.logprob, LEAST_LOGPROB),
        "bytes": list(token.text),
    }
