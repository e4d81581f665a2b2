"""Arguments that are written between tags, each as plain text, and become one JSON object."""

from __future__ import annotations

import json

import msgspec

from lmx_kernel.text.formats import CallArguments
from lmx_kernel.text.reader import BrokenCallError, Reader, Reading
from lmx_kernel.types import Tool

WORDS = {"True": "true", "False": "false", "None": "null"}
MAX_VALUE_CHARS = 1 << 20


def types_of(tool: Tool | None, argument: str) -> set[str]:
    """Return the JSON types that an argument may have; empty if the schema does not say."""
    properties = tool.parameters.get("properties") if tool else None
    found = properties.get(argument) if isinstance(properties, dict) else None
    types = found.get("type") if isinstance(found, dict) else None
    if isinstance(types, str):
        return {types}
    return {one for one in types if isinstance(one, str)} if isinstance(types, list) else set()


def read_value(reader: Reader, types: set[str], *closings: str) -> Reading[None]:
    """Read a value up to its closing tag: text is passed on as it is written, the rest at once.

    :raises BrokenCallError: the answer ends within it.
    """
    if types == {"string"}:
        yield CallArguments('"')
        if not (yield from reader.until(closings, escaped)):
            raise BrokenCallError
        yield CallArguments('"')
    else:
        text, _ = yield from reader.upto(*closings, limit=MAX_VALUE_CHARS)
        yield CallArguments(_as_json(text, types))


def escaped(text: str) -> CallArguments:
    """Return a piece of text as a piece of a JSON text."""
    return CallArguments(json.dumps(text, ensure_ascii=False)[1:-1])


def _as_json(text: str, types: set[str]) -> str:
    bare = text.strip()
    bare = WORDS.get(bare, bare)
    if bare == "null" or "string" not in types:
        try:
            msgspec.json.decode(bare)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            pass
        else:
            return bare
    return json.dumps(text, ensure_ascii=False)
