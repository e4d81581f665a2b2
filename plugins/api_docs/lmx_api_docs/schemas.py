"""JSON schemas out of classes, docstrings and examples."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

Schema = dict[str, Any]
REF = "#/components/schemas/{name}"

_FIELD = re.compile(r"\n\s*:(?:ivar|param) (\w+): (.*?)(?=\n\s*:\w|\Z)", re.DOTALL)
_JSON_TYPES = {str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null"}


def describe(types: Iterable[Any]) -> tuple[list[Schema], dict[str, Schema]]:
    """Return a schema for each of ``types``, and the components that these refer to by name."""
    schemas, components = msgspec.json.schema_components(
        types, ref_template=REF, schema_hook=lambda _: {}
    )
    for component in components.values():
        _explain(component)
    return list(schemas), components


def describe_examples(values: Sequence[Any]) -> Schema:
    """Return a schema that all of ``values`` have in common."""
    if all(isinstance(value, Mapping) for value in values):
        names = [name for name in values[0] if all(name in value for value in values)]
        properties = {name: describe_examples([value[name] for value in values]) for name in names}
        return {"type": "object", "properties": properties, "required": names}
    kinds = {type(value) for value in values}
    return {"type": sorted(map(_JSON_TYPES.get, kinds))} if kinds <= _JSON_TYPES.keys() else {}


def prose(docstring: str | None) -> str:
    """Return the text of a docstring, without its fields, as Markdown."""
    text, _, _ = inspect.cleandoc(docstring or "").partition("\n:")
    return _markdown(text)


def _explain(component: Schema) -> None:
    """Move what a class's docstring says of its fields to these."""
    docstring = component.get("description", "")
    for name, text in _FIELD.findall(docstring):
        if name in (properties := component.get("properties", {})):
            properties[name].setdefault("description", _markdown(text))
    if docstring:
        component["description"] = prose(docstring)


def _markdown(text: str) -> str:
    return re.sub(r":\w+:`[~.]?([^`]*)`", r"`\1`", " ".join(text.split())).replace("``", "`")
