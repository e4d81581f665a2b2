"""Arguments that are written between tags, each as plain text, and become one JSON object.

Masks hold them to their schemas but for far bounds of texts, and for what else an argument is that
may also be a text: to the mask it is a text then.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import msgspec
from attrs import frozen

from lmx_chat_formats.delimited_text import Texts
from lmx_chat_formats.grammar import literal
from lmx_kernel.errors import InvalidSchemaError
from lmx_kernel.text.formats import CallArguments
from lmx_kernel.text.formats.json_schema import PYTHON_TYPES, alternatives, arguments_schema
from lmx_kernel.text.formats.reader import BrokenCallError, Reader, Reading
from lmx_kernel.types import Tool

WORDS = {"True": "true", "False": "false", "None": "null"}
MAX_VALUE_CHARS = 1 << 20
MAX_NAME_CHARS = 64


@frozen
class ArgumentTypes:
    """The JSON types of a tool's arguments."""

    _schema: dict[str, Any]

    @classmethod
    def of(cls, tools: Sequence[Tool], name: str) -> ArgumentTypes:
        """Return those of the tool with a name."""
        for tool in tools:
            if tool.name == name:
                with suppress(InvalidSchemaError, RecursionError):
                    return cls(arguments_schema(tool))
        return cls({})

    def get(self, argument: str) -> set[str]:
        """Return the types that an argument may have; empty if the schema does not say."""
        types: set[str] = set()
        for row in alternatives(self._schema, self._schema):
            wanted = row.get("properties", {}).get(argument, row.get("additionalProperties", {}))
            for one in alternatives(wanted, self._schema):
                values = one.get("enum", ())
                types |= {kind for value in values for kind in PYTHON_TYPES[type(value)]}
                types |= set() if values else {one.get("type", "")}
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
    kinds = PYTHON_TYPES[type(value)]
    is_text = "string" in types and (isinstance(value, str) or not kinds & types)
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
        rules = _Rules(f"{index}", arguments_schema(tool), tags, texts)
        lines += rules.lines()
    return "\n".join([*lines, *texts.lines(), ""])


@frozen
class _Rules:
    """The rules of one tool's arguments."""

    _index: str
    _root: dict[str, Any]
    _tags: Tags
    _texts: Texts

    def lines(self) -> Iterator[str]:
        """Yield the rules."""
        rows = []
        for count, row in enumerate(alternatives(self._root, self._root)):
            named = []
            for rule, line in self._arguments(f"{self._index}_{count}", row):
                yield from line
                named.append(rule)
            rows.append(" ".join(named) or literal(""))
        yield f"arguments_{self._index}: {' | '.join(dict.fromkeys(rows))}"

    def _arguments(self, prefix: str, row: dict[str, Any]) -> Iterator[tuple[str, list[str]]]:
        """Yield what stands for each argument of an object, and the lines that it needs."""
        known = {
            name: part for name, part in row.get("properties", {}).items() if part is not False
        }
        for count, (name, wanted) in enumerate(known.items()):
            rule = f"argument_{prefix}_{count}"
            is_required = name in row.get("required", ())
            line = f"{rule}: {self._argument(literal(name), wanted)}"
            yield rule if is_required else f"{rule}?", [line]
        parts = [*row.get("patternProperties", {}).values(), row.get("additionalProperties", {})]
        if others := [part for part in parts if part is not False]:
            names = f" & ~({' | '.join(map(literal, known))})" if known else ""
            line = f"OTHER_{prefix}: /[^<>\\s]{{1,{MAX_NAME_CHARS}}}/{names}"
            found = " | ".join(f"({self._argument(f'OTHER_{prefix}', part)})" for part in others)
            yield f"({found})*", [line]

    def _argument(self, name: str, wanted: Any) -> str:
        values = dict.fromkeys(
            value for one in alternatives(wanted, self._root) for value in self._values(one)
        )
        tags = self._tags
        return f"{tags.key} {name} {tags.value} ({' | '.join(values)}) {tags.after}"

    def _values(self, wanted: dict[str, Any]) -> Iterator[str]:
        """Yield the rules of the values that fit a part, each with its closing tag."""
        if not wanted or wanted.get("type") == "string":
            yield self._texts.rule(wanted)
        elif "enum" in wanted:
            for option in wanted["enum"]:
                yield self._closed(
                    literal(option if isinstance(option, str) else json.dumps(option))
                )
        else:
            definitions = {key: self._root[key] for key in ("$defs",) if key in self._root}
            yield self._closed(f"%json {json.dumps(wanted | definitions)}")

    def _closed(self, value: str) -> str:
        lead = f"{literal(self._texts.lead)}?" if self._texts.lead else ""
        return f"{value} {lead} {literal(self._texts.mark)}"
