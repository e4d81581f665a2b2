"""The output of a response, which grows with the events of its answer."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from attrs import define, field

from lmx_kernel.types import (
    Event,
    Finished,
    Logprobs,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallStarted,
)
from lmx_responses_api.ids import ItemPlace, item_id
from lmx_responses_api.objects import ItemStatus, OutputItem
from lmx_responses_api.output_items import (
    CallItem,
    CustomCallItem,
    Frames,
    FunctionCallItem,
    GrowingItem,
    MessageItem,
    ReasoningItem,
)
from lmx_responses_api.response_object import ResponseHead
from lmx_responses_api.schema import ENCRYPTED
from lmx_responses_api.tool_choice import choice
from lmx_responses_api.toolbox import OfferedTool, Toolbox


@define
class Output:
    """The items so far; the last one may still grow.

    Probabilities of tokens whose text is not complete yet go with the message's next text.

    :ivar reason: why the answer ended; "" while it goes on.
    """

    head: ResponseHead
    reason: str = ""
    _items: list[GrowingItem] = field(factory=list)
    _held: list[Logprobs] = field(factory=list)

    @cached_property
    def _toolbox(self) -> Toolbox:
        return Toolbox.of(self.head.body.tools)

    @cached_property
    def _written(self) -> OfferedTool | None:
        """The tool whose input the whole text is."""
        is_named = isinstance(self.head.body.tool_choice, dict)
        return choice(self.head.body, self._toolbox).written if is_named else None

    def objects(self) -> list[OutputItem]:
        """Return the items as they are now."""
        return [item.object() for item in self._items]

    def add(self, event: Event) -> Frames:
        """Take the next event of the answer, and return the events of this dialect for it."""
        if isinstance(event, TextDelta):
            return self._text(event)
        if isinstance(event, ReasoningDelta):
            self._held.clear()
            return [*self._open(ReasoningItem), *self._items[-1].add(event.text)]
        if isinstance(event, ToolCallStarted):
            self._held.clear()
            return self._begin(self._call(event))
        if isinstance(event, ToolCallDelta):
            self._held.clear()
            return self._items[-1].add(event.arguments)
        if isinstance(event, Finished):
            self.reason = event.reason
        return []

    def close(self) -> Frames:
        """Return the events of the end. An answer without anything is an empty message."""
        opened = [] if self._items else self._open_text()
        return [
            *opened,
            *self._close_last("incomplete" if self.reason == "length" else "completed"),
        ]

    def cut(self) -> None:
        """Mark an item that still grows as incomplete: there will be no events of its end, since
        clients would take it for whole.
        """
        if self._items and self._items[-1].status == "in_progress":
            self._items[-1].status = "incomplete"

    # --- items ---

    def _text(self, event: TextDelta) -> Frames:
        self._held += event.logprobs
        if not event.text:
            return []
        tokens, self._held = self._held, []
        return self._open_text() + self._items[-1].add(event.text, tokens)

    def _open_text(self) -> Frames:
        """Open what the text is added to."""
        if self._written is None:
            return self._open(MessageItem)
        if self._grows(CustomCallItem):
            return []
        call_id = f"call_{self.head.id.removeprefix('resp_')[:24]}"
        return self._begin(self._custom(self._written, call_id, is_raw=True))

    def _open(self, cls: type[MessageItem] | type[ReasoningItem]) -> Frames:
        """Open an item of ``cls``, unless one is open."""
        if self._grows(cls):
            return []
        if cls is MessageItem:
            with_logprobs = self.head.with_logprobs
            item: GrowingItem = MessageItem(**self._place("message"), with_logprobs=with_logprobs)
        else:
            item = ReasoningItem(
                **self._place("reasoning"),
                with_summary=self.head.body.with_summary,
                is_sealed=self.head.includes(ENCRYPTED),
            )
        return self._begin(item)

    def _begin(self, item: GrowingItem) -> Frames:
        closed = self._close_last("completed")
        self._items.append(item)
        return [*closed, *item.opened()]

    def _close_last(self, status: ItemStatus) -> Frames:
        if self._items and self._items[-1].status == "in_progress":
            return self._items[-1].closed(status)
        return []

    def _grows(self, cls: type[GrowingItem]) -> bool:
        last = self._items[-1] if self._items else None
        return isinstance(last, cls) and last.status == "in_progress"

    def _place(self, kind: str) -> Any:
        """Return the fields that say where the next item is."""
        index = len(self._items)
        place = ItemPlace(self.head.id, is_input=False, index=index)
        return {"id": item_id(kind, place), "index": index}

    def _call(self, event: ToolCallStarted) -> CallItem:
        tool = self._toolbox.called(event.name)
        if tool is not None and tool.is_custom:
            return self._custom(tool, event.id)
        name, namespace = (tool.name, tool.namespace) if tool else (event.name, None)
        place = self._place("function_call")
        return FunctionCallItem(**place, call_id=event.id, name=name, namespace=namespace)

    def _custom(self, tool: OfferedTool, call_id: str, *, is_raw: bool = False) -> CallItem:
        return CustomCallItem(
            **self._place("custom_tool_call"),
            call_id=call_id,
            name=tool.name,
            namespace=tool.namespace,
            is_raw=is_raw,
        )
