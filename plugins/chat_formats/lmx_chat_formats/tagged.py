"""Arguments that are written between tags, each as plain text, and become one JSON object."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from lmx_chat_formats.grammar import literal
from lmx_kernel.text.formats import CallArguments
from lmx_kernel.text.reader import BrokenCallError, Reader, Reading
from lmx_kernel.types import Tool

WORDS = {"True": "true", "False": "false", "None": "null"}
MAX_VALUE_CHARS = 1 << 20


def types_of(tool: Tool | None, argument: str) -> set[str]:
    """Return the JSON types that an argument may have; empty if the schema does not say."""
    found = _properties(tool).get(argument) if tool else None
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


def grammar_of(tools: Sequence[Tool], opening: Callable[[str], str], closing: str) -> str:
    """Return a rule ``arguments_N`` for each tool: its arguments between their tags, those that may
    be missing too, in the order of the schema.

    :param opening: returns what stands before the value of an argument.
    :param closing: what stands after it.
    """
    lines = [f"text[lazy]: /(?s:.*)/ {literal(closing)}"]
    for index, tool in enumerate(tools):
        named = []
        for count, (name, wanted) in enumerate(_properties(tool).items()):
            rule = f"argument_{index}_{count}"
            value = _value(wanted, tool.parameters, closing)
            lines.append(f"{rule}: {literal(opening(name))} {value}")
            named.append(rule if name in _required(tool) else f"{rule}?")
        lines.append(f"arguments_{index}: {' '.join(named) or literal('')}")
    return "\n".join([*lines, ""])


def _properties(tool: Tool) -> dict[str, Any]:
    found = tool.parameters.get("properties")
    return found if isinstance(found, dict) else {}


def _required(tool: Tool) -> list[Any]:
    found = tool.parameters.get("required")
    return found if isinstance(found, list) else []


def _value(wanted: Any, root: dict[str, Any], closing: str) -> str:
    if isinstance(wanted, dict) and wanted.get("type") == "string":
        options = wanted.get("enum")
        if not isinstance(options, list) or not options:
            return "text"
        return f"({' | '.join(literal(f'{option}{closing}') for option in options)})"
    definitions = {key: root[key] for key in ("$defs", "definitions") if key in root}
    found = wanted if isinstance(wanted, dict) else {}
    return f"%json {json.dumps(found | definitions)} {literal(closing)}"
