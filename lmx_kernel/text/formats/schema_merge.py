"""What fits two JSON schemas at once, for schemas without references and choices."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

Schema = dict[str, Any]


def merge(one: Schema, other: Schema) -> Schema | None:
    """Return a schema for what fits both; None where nothing does.

    Of keywords that cannot be combined, the first schema's is kept beside the other under ``not``
    (which no mask follows), so that it is refused rather than ignored.
    """
    merged = {**other, **one}
    for key in one.keys() & other.keys():
        if one[key] == other[key]:
            continue
        combined = COMBINED[key](one[key], other[key]) if key in COMBINED else CONFLICT
        if combined is CONFLICT:
            merged["not"] = {key: other[key]}
        elif combined == []:
            return None
        else:
            merged[key] = combined
    properties = _properties(one, other)
    return merged | ({"properties": properties} if properties else {})


CONFLICT = object()


def types_of(kinds: Any) -> list[str]:
    """Return the types that the keyword ``type`` names; none where it is no keyword at all."""
    kinds = kinds if isinstance(kinds, list) else [kinds]
    return [kind for kind in kinds if isinstance(kind, str)]


def _common_types(one: Any, other: Any) -> list[str]:
    names, others = types_of(one), types_of(other)
    found = [kind for kind in names if kind in others]
    # Every integer is a number.
    if "integer" not in found and "integer" in [*names, *others] and "number" in [*names, *others]:
        found.append("integer")
    return found


def _common_values(one: Any, other: Any) -> list[Any]:
    known = {json.dumps(value, sort_keys=True) for value in other}
    return [value for value in one if json.dumps(value, sort_keys=True) in known]


def _properties(one: Schema, other: Schema) -> Schema:
    """Return the properties of both: each also fits what the other schema says of further ones."""
    ones, others = one.get("properties", {}), other.get("properties", {})
    found: Schema = {}
    for name in [*ones, *(name for name in others if name not in ones)]:
        parts = [
            schema.get("properties", {}).get(name, _further(schema, name))
            for schema in (one, other)
        ]
        told = [part for part in parts if part is not True]
        if len(told) < 2:
            found[name] = told[0] if told else True
        else:
            found[name] = False if False in told else {"allOf": told}
    return found


def _further(schema: Schema, name: str) -> Any:
    """Return what a schema says of a property that it does not name."""
    return True if schema.get("patternProperties") else schema.get("additionalProperties", True)


def _both(one: Any, other: Any) -> Any:
    if one is False or other is False:
        return False
    return {"allOf": [one, other]}


def _lists(one: Any, other: Any) -> list[Any]:
    ones, others = (part if isinstance(part, list) else [part] for part in (one, other))
    return [*ones, *(part for part in others if part not in ones)]


COMBINED: dict[str, Callable[[Any, Any], Any]] = {
    "type": _common_types,
    "enum": _common_values,
    "properties": lambda one, other: {**other, **one},
    "required": _lists,
    "additionalProperties": _both,
    "unevaluatedProperties": _both,
    "items": _both,
    "pattern": _lists,
    **dict.fromkeys(("minimum", "exclusiveMinimum", "minLength", "minItems"), max),
    **dict.fromkeys(("maximum", "exclusiveMaximum", "maxLength", "maxItems"), min),
}
