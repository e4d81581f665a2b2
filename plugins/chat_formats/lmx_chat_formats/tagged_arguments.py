"""Arguments that are written between tags, each as plain text, and become one JSON object.

Masks hold them to their schemas but for patterns, formats and far bounds of texts, which are no
JSON here, and for what else an argument is that may also be a text: to the mask it is a text then.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import msgspec
from attrs import frozen

from lmx_chat_formats.delimited_text import Texts
from lmx_chat_formats.grammar import literal
from lmx_chat_formats.schema_alternatives import alternatives
from lmx_kernel.text.formats import CallArguments
from lmx_kernel.text.formats.reader import BrokenCallError, Reader, Reading
from lmx_kernel.types import Tool

WORDS = {"True": "true", "False": "false", "None": "null"}
MAX_VALUE_CHARS = 1 << 20
ANNOTATIONS = {"title", "description", "default", "examples"}
KINDS = {
    str: {"string"},
    bool: {"boolean"},
    int: {"integer", "number"},
    float: {"number"},
    list: {"array"},
    dict: {"object"},
    type(None): {"null"},
}
"""JSON types of values."""


def types_of(tool: Tool | None, argument: str) -> set[str]:
    """Return the JSON types that an argument may have; empty if the schema does not say."""
    if tool is None:
        return set()
    wanted = _properties(tool).get(argument, _others(tool))
    types: set[str] = set()
    for one in alternatives(wanted, tool.parameters):
        types |= KINDS[type(one["const"])] if "const" in one else {one.get("type", "")}
    return set() if "" in types else types


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
    try:
        value = msgspec.json.decode(bare)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return json.dumps(text, ensure_ascii=False)
    is_text = "string" in types and (isinstance(value, str) or not KINDS[type(value)] & types)
    return json.dumps(text, ensure_ascii=False) if is_text else bare


@frozen
class Tags:
    """How an argument is written.

    :param key: the rule of what stands before its name.
    :param value: the rule of what stands between its name and its value.
    :param closing: the tag after its value.
    :param after: the rule of what follows the tag.
    :param lead: what may stand before the tag without being of the value.
    """

    key: str
    value: str
    closing: str
    after: str
    lead: str = ""


def grammar_of(tools: Sequence[Tool], tags: Tags) -> str:
    """Return a rule ``arguments_N`` for each tool: its arguments between their tags, those that may
    be missing too, in the order of the schema, and then others if it allows them.
    """
    texts = Texts(tags.closing, tags.lead)
    lines = []
    for index, tool in enumerate(tools):
        known, named = _properties(tool), []
        for count, (name, wanted) in enumerate(known.items()):
            rule = f"argument_{index}_{count}"
            lines.append(f"{rule}: {_argument(literal(name), wanted, tool, tags, texts)}")
            named.append(rule if name in _required(tool) else f"{rule}?")
        if (others := _others(tool)) is not False:
            names = f" & ~({' | '.join(map(literal, known))})" if known else ""
            lines.append(f"OTHER_{index}: /[^<>\\s]+/{names}")
            other = _argument(f"OTHER_{index}", others, tool, tags, texts)
            named.append(f"({other})*")
        lines.append(f"arguments_{index}: {' '.join(named) or literal('')}")
    return "\n".join([*lines, *texts.lines(), ""])


def _properties(tool: Tool) -> dict[str, Any]:
    found = tool.parameters.get("properties")
    return found if isinstance(found, dict) else {}


def _others(tool: Tool) -> Any:
    """Return the schema of arguments that a tool does not name; False if there are none.

    Other than the standard has it, a tool that names its arguments must say that it takes more.
    """
    return tool.parameters.get("additionalProperties", "properties" not in tool.parameters)


def _required(tool: Tool) -> list[Any]:
    found = tool.parameters.get("required")
    return found if isinstance(found, list) else []


def _argument(name: str, wanted: Any, tool: Tool, tags: Tags, texts: Texts) -> str:
    values = [_value(one, tool.parameters, texts) for one in alternatives(wanted, tool.parameters)]
    return f"{tags.key} {name} {tags.value} ({' | '.join(dict.fromkeys(values))}) {tags.after}"


def _value(wanted: dict[str, Any], root: dict[str, Any], texts: Texts) -> str:
    """Return the rule of a value and its closing tag."""
    if _is_text(wanted):
        return texts.rule(wanted)
    if "const" in wanted:
        option = wanted["const"]
        value = literal(option if isinstance(option, str) else json.dumps(option))
    else:
        definitions = {key: root[key] for key in ("$defs", "definitions") if key in root}
        value = f"%json {json.dumps(wanted | definitions)}"
    lead = f"{literal(texts.lead)}?" if texts.lead else ""
    return f"{value} {lead} {literal(texts.mark)}"


def _is_text(wanted: dict[str, Any]) -> bool:
    """Return whether a simple schema wants a text, or does not care."""
    return wanted.get("type") == "string" or not wanted.keys() - ANNOTATIONS
