"""JSON schemas as the grammar library wants them, with bounds of what has none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import evolve

from lmx_kernel.text.formats.json_schema import normal_form
from lmx_kernel.types import Tool

MAX_BOUND = 1024
"""Larger bounds in a tool's schema are dropped: no real call reaches them, and each character costs
the lexer about ten states."""

WHITESPACE = r" |\r?\n[ \t]{0,32}"
"""Between the parts of JSON. It is bounded because a small model may write spaces without end."""

LARGEST, SMALLEST = 10**18, 1e-10
"""Of numbers, which a small model may write without end too: 18 digits before the point, 10 after
it. The library writes bounded numbers without an exponent."""

ANY = "any_value"
VALUES = [
    {"type": "object", "additionalProperties": {}},
    {"type": "array", "items": {}},
    {"type": "string"},
    {"type": "number"},
    {"type": "boolean"},
    {"type": "null"},
]
"""What ``{}`` stands for, so that the numbers in it have bounds."""

BOUNDS = ("maxLength", "minLength", "maxItems", "minItems", "maxProperties", "minProperties")
EXAMPLES = ("const", "enum", "default", "examples")
"""Keywords of a schema that hold values, no schemas."""


def with_options(schema: object, *, is_lenient: bool) -> object:
    """Return a schema with the library's options, which replace any that it came with, and with
    bounds of its numbers.

    :param is_lenient: the library ignores what it cannot follow, instead of refusing it.
    :raises InvalidSchemaError: see :func:`lmx_kernel.text.formats.json_schema.normal_form`.
    """
    part = normal_form(schema)
    if part is False:
        return False
    definitions = {**part.pop("$defs", {}), ANY: {"anyOf": VALUES}}
    bounded = {name: _bounded(definition) for name, definition in definitions.items()}
    options = {"whitespace_pattern": WHITESPACE, "lenient": is_lenient}
    return _bounded(part) | {"$defs": bounded, "x-guidance": options}


def _bounded(part: Any) -> Any:
    """Return a part in normal form with bounds of its numbers."""
    if not isinstance(part, dict):
        return part
    if not part:
        return {"$ref": f"#/$defs/{ANY}"}
    if part.get("type") in ("integer", "number"):
        return _number(part)
    bounded = dict(part)
    for key in ("additionalProperties", "items"):
        if key in part:
            bounded[key] = _bounded(part[key])
    for key in ("anyOf", "prefixItems"):
        if key in part:
            bounded[key] = [_bounded(one) for one in part[key]]
    for key in ("properties", "patternProperties"):
        if key in part:
            bounded[key] = {name: _bounded(one) for name, one in part[key].items()}
    return bounded


def _number(part: dict[str, Any]) -> dict[str, Any]:
    """Return a number with the bounds that it lacks, and nearer ones where its own are too far."""
    low = max(part.get("minimum", -LARGEST), part.get("exclusiveMinimum", -LARGEST))
    high = min(part.get("maximum", LARGEST), part.get("exclusiveMaximum", LARGEST))
    bounded = dict(part)
    if low <= -LARGEST < high:
        bounded.pop("exclusiveMinimum", None)
        bounded["minimum"] = -LARGEST
    if high >= LARGEST > low:
        bounded.pop("exclusiveMaximum", None)
        bounded["maximum"] = LARGEST
    if part["type"] == "number" and "multipleOf" not in part and high - low >= 10 * SMALLEST:
        bounded["multipleOf"] = SMALLEST
    return bounded


def without_absurd_bounds(tool: Tool) -> Tool:
    """Return a tool without the bounds of its schema that no real call reaches."""
    return evolve(tool, parameters=_without(_is_absurd, tool.parameters))


def without_patterns(tool: Tool) -> Tool:
    """Return a tool without the patterns of its strings; its schema is in normal form."""
    return evolve(tool, parameters=_without(_is_pattern, tool.parameters))


def with_any_parameters(tool: Tool) -> Tool:
    """Return a tool that takes any JSON object."""
    return evolve(tool, parameters={"type": "object", "additionalProperties": True})


def _without(is_unwanted: Callable[[str, Any], bool], value: Any) -> Any:
    """Return a schema without some of its keywords, at any depth."""
    if isinstance(value, list):
        return [_without(is_unwanted, item) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        key: item if key in EXAMPLES else _without(is_unwanted, item)
        for key, item in value.items()
        if not is_unwanted(key, item)
    }


def _is_absurd(key: str, value: Any) -> bool:
    return key in BOUNDS and isinstance(value, int | float) and not 0 <= value <= MAX_BOUND


def _is_pattern(key: str, value: Any) -> bool:
    return key == "pattern" and isinstance(value, str)
