"""What the model produces, item by item: each as events while it grows, and as an object."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, cast

from attrs import define, field

from lmx_kernel.types import Logprobs, TokenLogprob
from lmx_responses_api.frames import Deltas, Frame
from lmx_responses_api.objects import (
    ChosenToken,
    ItemStatus,
    OutputItem,
    OutputPart,
    TokenObject,
)
from lmx_responses_api.sealed import seal
from lmx_responses_api.string_field import StringField

LEAST_LOGPROB = -9999.0  # JSON has no -inf

Frames = list[Frame]
"""Events of this dialect, but for their numbers."""


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

    def opened(self) -> Frames:
        """Return the events of its beginning."""
        return [self._of_item("added")]

    @abstractmethod
    def add(self, text: str, logprobs: Sequence[Logprobs] = ()) -> Frames:
        """Add text, and return the events of it."""

    @abstractmethod
    def _finished(self) -> Frames:
        """Return the events that end what it consists of."""

    def closed(self, status: ItemStatus) -> Frames:
        """Return the events of its end."""
        events = self._finished()
        self.status = status
        return [*events, self._of_item("done")]

    def _event(self, kind: str, **fields: Any) -> Frame:
        return Frame.of(kind, **self._place, **fields)

    def _deltas_of(self, kind: str, **fields: Any) -> Deltas:
        return Deltas(kind, **self._place, **fields)

    @property
    def _place(self) -> Any:
        return {"item_id": self.id, "output_index": self.index}

    def _of_item(self, what: str) -> Frame:
        kind = f"response.output_item.{what}"
        return Frame.of(kind, output_index=self.index, item=self.object())


@define(kw_only=True)
class MessageItem(GrowingItem):
    """The text for the user.

    :ivar with_logprobs: whether it has the probabilities of its tokens.
    """

    with_logprobs: bool
    _text: list[str] = field(factory=list)
    _logprobs: list[ChosenToken] = field(factory=list)
    _has_part: bool = False
    _deltas: Deltas = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._deltas = self._deltas_of("response.output_text.delta", content_index=0, logprobs=[])

    def object(self) -> OutputItem:
        """Return the message; it has its part as soon as that was announced."""
        return {
            "type": "message",
            "id": self.id,
            "status": self.status,
            "role": "assistant",
            "content": [self._part()] if self._has_part else [],
        }

    def opened(self) -> Frames:
        """Return the events of the message, and of its only part."""
        added = super().opened()
        self._has_part = True
        part = self._part()
        return [*added, self._event("response.content_part.added", content_index=0, part=part)]

    def add(self, text: str, logprobs: Sequence[Logprobs] = ()) -> Frames:
        """Add text with its tokens."""
        self._text.append(text)
        if not self.with_logprobs:
            return [self._deltas.of(text)]
        tokens = list(map(_chosen, logprobs))
        self._logprobs += tokens
        kind = "response.output_text.delta"
        return [self._event(kind, content_index=0, delta=text, logprobs=tokens)]

    def _finished(self) -> Frames:
        text, kind = "".join(self._text), "response.output_text.done"
        return [
            self._event(kind, content_index=0, text=text, logprobs=self._logprobs),
            self._event("response.content_part.done", content_index=0, part=self._part()),
        ]

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
    _deltas: Deltas = field(init=False)
    _summary_deltas: Deltas = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._deltas = self._deltas_of("response.reasoning_text.delta", content_index=0)
        kind = "response.reasoning_summary_text.delta"
        self._summary_deltas = self._deltas_of(kind, summary_index=0)

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

    def opened(self) -> Frames:
        """Return the events of the reasoning, and of its parts."""
        events = super().opened()
        part = _part("reasoning_text", "")
        events.append(self._event("response.content_part.added", content_index=0, part=part))
        if self.with_summary:
            part, kind = _part("summary_text", ""), "response.reasoning_summary_part.added"
            events.append(self._event(kind, summary_index=0, part=part))
        self._has_parts = True
        return events

    def add(self, text: str, logprobs: Sequence[Logprobs] = ()) -> Frames:
        """Add text."""
        self._text.append(text)
        summary = [self._summary_deltas.of(text)] if self.with_summary else []
        return [self._deltas.of(text), *summary]

    def _finished(self) -> Frames:
        text = "".join(self._text)
        part, summary = _part("reasoning_text", text), _part("summary_text", text)
        events = [
            self._event("response.reasoning_text.done", content_index=0, text=text),
            self._event("response.content_part.done", content_index=0, part=part),
        ]
        if self.with_summary:
            kind = "response.reasoning_summary"
            events += [
                self._event(f"{kind}_text.done", summary_index=0, text=text),
                self._event(f"{kind}_part.done", summary_index=0, part=summary),
            ]
        return events


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
    _deltas: Deltas = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._deltas = self._deltas_of("response.function_call_arguments.delta")

    def object(self) -> OutputItem:
        """Return the call."""
        return self._call("function_call", arguments="".join(self._arguments))

    def add(self, text: str, logprobs: Sequence[Logprobs] = ()) -> Frames:
        """Add to the JSON text of the arguments."""
        self._arguments.append(text)
        return [self._deltas.of(text)]

    def _finished(self) -> Frames:
        arguments, kind = "".join(self._arguments), "response.function_call_arguments.done"
        return [self._event(kind, name=self.name, arguments=arguments)]


@define(kw_only=True)
class CustomCallItem(CallItem):
    """A call of a custom tool.

    :ivar is_raw: the model writes the input itself, not the JSON of a function's arguments.
    """

    is_raw: bool = False
    _input: StringField = field(factory=StringField)
    _deltas: Deltas = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._deltas = self._deltas_of("response.custom_tool_call_input.delta")

    def object(self) -> OutputItem:
        """Return the call."""
        return self._call("custom_tool_call", input=self._input.text)

    def add(self, text: str, logprobs: Sequence[Logprobs] = ()) -> Frames:
        """Add what the model wrote."""
        if self.is_raw:
            self._input.text += text
        else:
            text = self._input.add(text)
        return self._more(text)

    def _finished(self) -> Frames:
        missing = "" if self.is_raw else self._input.finish()
        done = self._event("response.custom_tool_call_input.done", input=self._input.text)
        return [*self._more(missing), done]

    def _more(self, text: str) -> Frames:
        return [self._deltas.of(text)] if text else []


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
