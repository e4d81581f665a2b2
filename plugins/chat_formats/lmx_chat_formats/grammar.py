"""Lark rules of calls, for masks."""

from __future__ import annotations

import json
from collections.abc import Sequence

from lmx_kernel.text.formats.json_schema import arguments_schema
from lmx_kernel.types import Tool

BARE = (r'\[?\s*\{\s*("type"\s*:\s*"function"\s*,\s*)?"name"\s*:\s*"', '{"name": "')
"""How an answer begins that is a call as JSON without a mark, or a list of them."""


def literal(text: str) -> str:
    """Return the rule that is this text."""
    return json.dumps(text, ensure_ascii=False)


def repeated(call: str, between: str = "", *, parallel: bool) -> str:
    """Return the rule ``calls`` for one call, or one and more."""
    return f"calls: {call} ({between} {call})*\n" if parallel else f"calls: {call}\n"


def choice(name: str, rules: Sequence[str]) -> str:
    """Return the rule ``name`` that is one of ``rules``."""
    names = [f"{name}_{index}" for index in range(len(rules))]
    lines = [f"{one}: {rule}" for one, rule in zip(names, rules, strict=True)]
    return "\n".join([f"{name}: {' | '.join(names)}", *lines, ""])


def arguments(tools: Sequence[Tool]) -> str:
    """Return a rule ``arguments_N`` for each tool: its arguments as JSON."""
    schemas = map(json.dumps, map(arguments_schema, tools))
    lines = [f"arguments_{n}: %json {schema}" for n, schema in enumerate(schemas)]
    return "\n".join([*lines, ""])


def json_call(tools: Sequence[Tool], key: str = "arguments", tail: str = "") -> str:
    """Return the rule ``object``: a call as a JSON object with a name and arguments.

    :param tail: the rule of what may stand between the arguments and the end.
    """
    rules = []
    for index, tool in enumerate(tools):
        head = '{"name": ' + json.dumps(tool.name, ensure_ascii=False) + f', "{key}": '
        rules.append(f"{literal(head)} arguments_{index} {tail} {literal('}')}")
    return choice("object", rules) + arguments(tools)


def named_call(tools: Sequence[Tool], before: str, between: str) -> str:
    """Return the rule ``named``: a name, something between, and the arguments as JSON."""
    rules = [
        f"{literal(before + tool.name)} {between} arguments_{n}" for n, tool in enumerate(tools)
    ]
    return choice("named", rules) + arguments(tools)
