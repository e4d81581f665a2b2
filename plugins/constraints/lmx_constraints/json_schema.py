"""JSON schemas, with what the grammar library needs added and what it cannot follow removed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import evolve

from lmx_kernel.types import Tool

MAX_BOUND = 1024
"""Larger bounds in a tool's schema are dropped: no real call reaches them, and each character costs
the lexer about ten states."""

WHITESPACE = r" |\r?\n[ \t]{0,32}"
"""Between the parts of JSON. It is bounded because a small model may write spaces without end."""

BOUNDS = ("maxLength", "minLength", "maxItems", "minItems", "maxProperties", "minProperties")

VALUES = ("const", "enum", "default", "examples")
"""Keywords of a schema that hold values, no schemas."""

FORMATS = frozenset({"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6",
                     "uuid", "uri"})  # fmt: skip
"""Formats of strings that the library knows."""


def with_options(schema: object, *, is_lenient: bool) -> object:
    """Return a schema with the library's options, which replace any that it came with.

    :param is_lenient: the library ignores what it cannot follow, instead of refusing it.
    """
    if not isinstance(schema, dict):
        return schema
    options = {"whitespace_pattern": WHITESPACE, "lenient": is_lenient}
    return _without(_is_annotation, schema) | {"x-guidance": options}


def without_absurd_bounds(tool: Tool) -> Tool:
    """Return a tool without the bounds of its schema that no real call reaches."""
    return evolve(tool, parameters=_without(_is_absurd, tool.parameters))


def without_patterns(tool: Tool) -> Tool:
    """Return a tool without the patterns and formats of its strings."""
    return evolve(tool, parameters=_without(_is_pattern, tool.parameters))


def with_any_parameters(tool: Tool) -> Tool:
    """Return a tool that takes any JSON object."""
    return evolve(tool, parameters={"type": "object"})


def _without(is_unwanted: Callable[[str, Any], bool], value: Any) -> Any:
    """Return a schema without some of its keywords, at any depth."""
    if isinstance(value, list):
        return [_without(is_unwanted, item) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        key: item if key in VALUES else _without(is_unwanted, item)
        for key, item in value.items()
        if not is_unwanted(key, item)
    }


def _is_absurd(key: str, value: Any) -> bool:
    return key in BOUNDS and isinstance(value, int | float) and not 0 <= value <= MAX_BOUND


def _is_pattern(key: str, value: Any) -> bool:
    return key in ("pattern", "format") and isinstance(value, str)


def _is_annotation(key: str, value: Any) -> bool:
    """Return whether a keyword forbids nothing: by the standard, formats may be mere annotations.

    Source: JSON Schema 2020-12, Validation, section 7.
    """
    if key == "propertyNames":
        return value in (True, {}, {"type": "string"})
    return key == "format" and isinstance(value, str) and value not in FORMATS
