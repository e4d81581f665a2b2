"""Lark rules of objects with bare keys and marked texts, from the schemas of tools.

All of a schema is held but what the names of further properties must look like, and how often
a property may be written.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import count
from typing import Any

from attrs import define, field

from lmx_chat_formats.delimited_text import Texts
from lmx_chat_formats.grammar import literal
from lmx_kernel.text.formats.json_schema import alternatives, arguments_schema
from lmx_kernel.types import Tool

KEY = r"/[A-Za-z_][\w-]{0,63}/"
VALUES = [
    {"type": "object", "additionalProperties": {}},
    {"type": "array", "items": {}},
    {"type": "string"},
    {"type": "number"},
    {"type": "boolean"},
    {"type": "null"},
]
"""What ``{}`` stands for."""


def arguments(tools: Sequence[Tool], quote: str) -> str:
    """Return a rule ``arguments_N`` for each tool.

    :param quote: the mark around a text.
    """
    texts = Texts(quote)
    lines = []
    for index, tool in enumerate(tools):
        schema = arguments_schema(tool)
        rules = _Rules(f"part_{index}", schema, texts)
        lines.append(f"arguments_{index}: {rules.part(schema)}")
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
            self._names[key] = name = self._named("")
            self.rules[name] = self._write(wanted)
        return self._names[key]

    def _write(self, wanted: Any) -> str:
        options = VALUES if wanted == {} else alternatives(wanted, self._root)
        return " | ".join(dict.fromkeys(map(self._one, options)))

    def _one(self, wanted: dict[str, Any]) -> str:
        if "enum" in wanted:
            return " | ".join(map(self._constant, wanted["enum"]))
        match wanted.get("type"):
            case "string":
                return f"{literal(self._texts.mark)} {self._texts.rule(wanted)}"
            case "object":
                return self._object(wanted)
            case "array":
                return self._list(wanted)
            case None:
                return self.part({})
        return f"%json {json.dumps(wanted)}"

    def _object(self, wanted: dict[str, Any]) -> str:
        """Return the rule of an object with its keys in the order of the alphabet, as the templates
        of these models write them, and then further ones.
        """
        properties, required = wanted.get("properties", {}), wanted.get("required", ())
        # What may follow where no pair stands yet, and where one does.
        first, later = self._further(wanted)
        for key in sorted(properties, key=str.casefold, reverse=True):
            if properties[key] is False:
                continue
            pair = f'{literal(key)} ":" {self.part(properties[key])}'
            alone, joined = f"{pair} {later}", f'"," {pair} {later}'
            is_optional = key not in required
            first = self._named(f"{alone} | {first}" if is_optional else alone)
            later = self._named(f"{joined} | {later}" if is_optional else joined)
        return f'"{{" {first} "}}"'

    def _further(self, wanted: dict[str, Any]) -> tuple[str, str]:
        """Return what pairs an object may have that it does not name: at its start, and later."""
        parts = [*wanted.get("patternProperties", {}).values(), wanted["additionalProperties"]]
        values = [self.part(part) for part in parts if part is not False]
        if not values:
            return '""', '""'
        taken = " | ".join(map(literal, wanted.get("properties", {})))
        key = self._named(f"{KEY} & ~({taken})" if taken else KEY, is_terminal=True)
        pair = self._named(f'{key} ":" ({" | ".join(dict.fromkeys(values))})')
        later = self._named(f'("," {pair})*')
        return self._named(f'{pair} {later} | ""'), later

    def _list(self, wanted: dict[str, Any]) -> str:
        low, high = wanted.get("minItems", 0), wanted.get("maxItems")
        items = [self.part(part) for part in wanted.get("prefixItems", ())]
        further = ""
        if wanted["items"] is not False:
            item = self.part(wanted["items"])
            items = items or [item]
            more = max(low - len(items), 0)
            most = "" if high is None else max(high - len(items), more)
            further = f'("," {item}){{{more},{most}}}' if most != 0 else ""
        if not items or high == 0:
            return '"[" "]"'
        listed = ' "," '.join(items)
        return f'"[" {listed} {further} "]"' + ("" if low else ' | "[" "]"')

    def _constant(self, value: Any) -> str:
        if isinstance(value, str):
            return literal(f"{self._texts.mark}{value}{self._texts.mark}")
        return self.part({}) if isinstance(value, dict | list) else literal(json.dumps(value))

    def _named(self, rule: str, *, is_terminal: bool = False) -> str:
        name = f"{self._prefix}_{next(self._count)}"
        name = name.upper() if is_terminal else name
        self.rules[name] = rule
        return name
