"""Lark rules of objects with bare keys and marked texts, from the schemas of tools.

Types, properties, enums, unions, lists, references and lengths of texts are held. Patterns, far
bounds of texts and any of numbers and lists are not: the values are no JSON, so that the mask's
library cannot be asked to.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import count
from typing import Any

from attrs import define, field

from lmx_chat_formats.delimited_text import Texts
from lmx_chat_formats.grammar import literal, schema
from lmx_chat_formats.schema_alternatives import alternatives
from lmx_kernel.types import Tool

KINDS = {
    "integer": "INTEGER",
    "number": "NUMBER",
    "boolean": '"true" | "false"',
    "null": '"null"',
    "array": "list",
    "object": "object",
}


def arguments(tools: Sequence[Tool], quote: str) -> str:
    """Return a rule ``arguments_N`` for each tool.

    :param quote: the mark around a text.
    """
    texts = Texts(quote)
    lines = [
        'object: "{" (pair ("," pair)*)? "}"',
        'pair: /[A-Za-z_][\\w-]*/ ":" value',
        'value: object | list | text | NUMBER | "true" | "false" | "null"',
        'list: "[" (value ("," value)*)? "]"',
        f"text: {literal(quote)} {texts.rule({})}",
        "INTEGER: /-?(0|[1-9][0-9]*)/",
        "NUMBER: /-?(0|[1-9][0-9]*)(\\.[0-9]+)?([eE][-+]?[0-9]+)?/",
    ]
    for index, tool in enumerate(tools):
        rules = _Rules(f"part_{index}", schema(tool), texts)
        lines.append(f"arguments_{index}: {rules.part(schema(tool))}")
        lines += [f"{name}: {rule}" for name, rule in rules.rules.items()]
    return "\n".join([*lines, *texts.lines(), ""])


@define
class _Rules:
    """The rules of one schema, a part each.

    :ivar rules: by name.
    """

    _prefix: str
    _root: dict[str, Any]
    _texts: Texts
    rules: dict[str, str] = field(factory=dict, init=False)
    _names: dict[str, str] = field(factory=dict, init=False)
    _count: Iterator[int] = field(factory=count, init=False)

    def part(self, wanted: Any) -> str:
        """Return the name of the rule for what fits a part of the schema."""
        key = json.dumps(wanted)
        if key not in self._names:
            # It has its name before it is written, since it may hold itself.
            self._names[key] = name = self._new_name()
            self.rules[name] = self._write(wanted)
        return self._names[key]

    def _write(self, wanted: Any) -> str:
        return " | ".join(dict.fromkeys(map(self._one, alternatives(wanted, self._root))))

    def _one(self, wanted: dict[str, Any]) -> str:
        if "const" in wanted:
            return self._constant(wanted["const"])
        kind = wanted.get("type", "")
        if kind == "string":
            return f"{literal(self._texts.mark)} {self._texts.rule(wanted)}"
        if kind == "object" and wanted.get("properties"):
            return self._object(wanted["properties"], wanted.get("required") or [])
        if kind == "array" and "items" in wanted:
            item = self.part(wanted["items"])
            return f'"[" ({item} ("," {item})*)? "]"'
        return KINDS.get(kind, "value")

    def _object(self, properties: dict[str, Any], required: Sequence[str]) -> str:
        """Return the rule of an object with its keys in the order of the alphabet, as the templates
        of these models write them.
        """
        first = later = '""'  # what may follow where no pair stands yet, and where one does
        for key in sorted(properties, key=str.casefold, reverse=True):
            pair = f'{literal(key)} ":" {self.part(properties[key])}'
            alone, joined = f"{pair} {later}", f'"," {pair} {later}'
            is_optional = key not in required
            first = self._named(f"{alone} | {first}" if is_optional else alone)
            later = self._named(f"{joined} | {later}" if is_optional else joined)
        return f'"{{" {first} "}}"'

    def _constant(self, value: Any) -> str:
        if isinstance(value, str):
            return literal(f"{self._texts.mark}{value}{self._texts.mark}")
        return "value" if isinstance(value, dict | list) else literal(json.dumps(value))

    def _named(self, rule: str) -> str:
        name = self._new_name()
        self.rules[name] = rule
        return name

    def _new_name(self) -> str:
        return f"{self._prefix}_{next(self._count)}"
