"""The items of a conversation as clients send them, and as the server lists them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Any, Literal

from attrs import frozen
from msgspec import Meta

from lmx_kernel.dialect.fields import JsonObject
from lmx_kernel.dialect.json_values import check_json
from lmx_kernel.errors import InvalidRequestError, UnsupportedFieldError
from lmx_responses_api.ids import ItemPlace, item_id
from lmx_responses_api.query import convert

PartType = Annotated[str, Meta(max_length=64)]


@frozen(kw_only=True)
class Part:
    """A part of a message, of reasoning or of a tool's result."""

    type: PartType
    text: str | None = None
    refusal: str | None = None


@frozen(kw_only=True)
class MessageItem:
    """What somebody said; ``assistant`` is the model."""

    role: Literal["user", "assistant", "system", "developer"]
    content: str | list[Part] | None = None


@frozen(kw_only=True)
class FunctionCallItem:
    """A call that the model made. ``arguments`` is as it wrote them, which may be no JSON."""

    call_id: str
    name: str
    namespace: str | None = None
    arguments: str | None = None


@frozen(kw_only=True)
class CustomCallItem:
    """A call of a custom tool that the model made; ``input`` is free text."""

    call_id: str
    name: str
    namespace: str | None = None
    input: str | None = None


@frozen(kw_only=True)
class CallOutputItem:
    """What a tool returned."""

    call_id: str
    output: str | list[Part] | None = None


@frozen(kw_only=True)
class ReasoningItem:
    """What the model thought before it spoke or called."""

    content: list[Part] | None = None
    summary: list[Part] | None = None
    encrypted_content: str | None = None


@frozen(kw_only=True)
class ItemReference:
    """Stands for an item of a kept response."""

    id: str


Item = (
    MessageItem | FunctionCallItem | CustomCallItem | CallOutputItem | ReasoningItem | ItemReference
)
REFERENCE = "item_reference"
_CLASSES: dict[str, type[Any]] = {
    "message": MessageItem,
    "function_call": FunctionCallItem,
    "function_call_output": CallOutputItem,
    "custom_tool_call": CustomCallItem,
    "custom_tool_call_output": CallOutputItem,
    "reasoning": ReasoningItem,
    REFERENCE: ItemReference,
}


def given_items(given: str | list[JsonObject] | None) -> list[JsonObject]:
    """Return the field ``input`` as items, each with its type; a text is a user's message.

    :raises InvalidRequestError: an item has no type; ``param`` names it.
    """
    if given is None:
        return []
    if isinstance(given, str):
        return [{"type": "message", "role": "user", "content": given}]
    check_json("input", given)
    return [{**item, "type": _type(f"input[{index}]", item)} for index, item in enumerate(given)]


def parse_item(where: str, item: JsonObject) -> Item:
    """Return an item of :func:`given_items`.

    :param where: the field that has it, for errors.
    :raises UnsupportedFieldError: LMX has no items of its type.
    :raises InvalidRequestError: naming the field that is wrong.
    """
    cls = _CLASSES.get(item["type"])
    if cls is None:
        path = f"{where}.type"
        raise UnsupportedFieldError(f"{path}: {item['type']} is not supported", param=path)
    found: Item = convert(where, item, cls)
    return found


def listed(items: Iterable[JsonObject], response_id: str) -> Iterator[JsonObject]:
    """Yield the input items of a response as they are listed: with an id, and content as parts."""
    for index, item in enumerate(items):
        own_id = item.get("id") or item_id(item["type"], ItemPlace(response_id, True, index))
        shown = {"status": "completed", **item, "id": own_id}
        if item["type"] == "message":
            kind = "output_text" if item.get("role") == "assistant" else "input_text"
            shown["content"] = [_listed_part(kind, part) for part in _parts(item.get("content"))]
        yield shown


def page(
    items: Sequence[JsonObject], *, after: str | None, limit: int
) -> tuple[list[JsonObject], bool]:
    """Return up to ``limit`` items after the one of the id ``after``, and whether more follow.

    :raises InvalidRequestError: no item has that id.
    """
    start = 0
    if after is not None:
        known = [item["id"] for item in items]
        if after not in known:
            raise InvalidRequestError(f"after: there is no item {after!r}", param="after")
        start = known.index(after) + 1
    end = start + limit
    return list(items[start:end]), end < len(items)


def _type(where: str, item: JsonObject) -> str:
    kind = item.get("type") or ("message" if "role" in item else None)
    if not isinstance(kind, str):
        path = f"{where}.type"
        raise InvalidRequestError(f"{path}: this field is required", param=path)
    return kind


def _parts(content: Any) -> list[JsonObject]:
    return [{"text": content}] if isinstance(content, str) else content or []


def _listed_part(kind: str, part: JsonObject) -> JsonObject:
    shown = {"type": kind, **part}
    return {"annotations": [], **shown} if shown["type"] == "output_text" else shown
