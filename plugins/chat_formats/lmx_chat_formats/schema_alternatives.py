"""What a part of a JSON schema allows, as a list of simple schemas."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

MAX_DEPTH = 16

Schema = dict[str, Any]


def alternatives(wanted: Any, root: Schema, depth: int = 0) -> Iterator[Schema]:
    """Yield schemas of which a value fits one: each has a ``const``, a single type, or says nothing
    of either.

    :param root: the schema in which references are looked up.
    """
    if not isinstance(wanted, dict) or depth > MAX_DEPTH:
        yield {}
    elif "$ref" in wanted:
        yield from alternatives(_referred(wanted["$ref"], root), root, depth + 1)
    elif options := _options(wanted):
        yield from ({"const": option} for option in options)
    elif isinstance(choices := _choices(wanted), list):
        for choice in _merged(choices, wanted):
            yield from alternatives(choice, root, depth + 1)
    else:
        yield from _of_types(wanted)


def _options(wanted: Schema) -> list[Any]:
    options = [wanted["const"]] if "const" in wanted else wanted.get("enum")
    return options if isinstance(options, list) else []


def _choices(wanted: Schema) -> Any:
    return wanted.get("anyOf") or wanted.get("oneOf")


def _merged(choices: list[Any], wanted: Schema) -> Iterator[Schema]:
    """Yield each of ``choices`` with the keywords that stand beside them."""
    beside = {key: value for key, value in wanted.items() if key not in ("anyOf", "oneOf")}
    for choice in choices:
        yield beside | choice if isinstance(choice, dict) else beside


def _of_types(wanted: Schema) -> Iterator[Schema]:
    untyped = {key: value for key, value in wanted.items() if key != "type"}
    kinds = wanted.get("type")
    for kind in kinds if isinstance(kinds, list) and kinds else [kinds]:
        yield untyped | ({"type": kind} if isinstance(kind, str) else {})


def _referred(reference: Any, root: Schema) -> Any:
    """Return the part of the schema that ``#/a/b`` names; True, which allows anything, if there is
    none.
    """
    part: Any = root
    for key in str(reference).removeprefix("#").strip("/").split("/"):
        if key:
            part = part.get(key, True) if isinstance(part, dict) else True
    return part
