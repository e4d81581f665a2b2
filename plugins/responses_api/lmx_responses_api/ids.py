"""The ids of responses and of their items.

An item's id tells the response that it belongs to and its place there, so that a later request can
refer to it without an index of items.
"""

from __future__ import annotations

import re
import uuid

from attrs import frozen

_PREFIXES = {
    "message": "msg",
    "reasoning": "rs",
    "function_call": "fc",
    "function_call_output": "fco",
    "custom_tool_call": "ctc",
    "custom_tool_call_output": "ctco",
}
_ITEM = re.compile(r"[a-z]+_([0-9a-f]{32})_(i?)([0-9]{1,6})")


@frozen
class ItemPlace:
    """Where an item is: in the input or the output of a response, counted from 0."""

    response_id: str
    is_input: bool
    index: int


def response_id(key: str = "") -> str:
    """Return the id of the response to the answer of the id ``key``; a new one without."""
    return f"resp_{key or uuid.uuid4().hex}"


def item_id(kind: str, place: ItemPlace) -> str:
    """Return the id of an item of a kind such as ``message``."""
    prefix = _PREFIXES.get(kind, "item")
    mark = "i" if place.is_input else ""
    return f"{prefix}_{place.response_id.removeprefix('resp_')}_{mark}{place.index}"


def find_place(found_id: str) -> ItemPlace | None:
    """Return where the item of this id is; None if the id is not of :func:`item_id`."""
    match = _ITEM.fullmatch(found_id)
    return match and ItemPlace(response_id(match[1]), bool(match[2]), int(match[3]))
