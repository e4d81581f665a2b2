"""What a part of a schema allows, as a list of simple schemas."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

MAX_DEPTH = 16


def simple(wanted: Any, root: dict[str, Any], depth: int = 0) -> Iterator[dict[str, Any]]:
    """Yield schemas of which a value fits one: each has a ``const``, a single type, or says nothing
    of either.

    :param root: the schema in which references are looked up.
    """
    if not isinstance(wanted, dict) or depth > MAX_DEPTH:
        yield {}
        return
    options = [wanted["const"]] if "const" in wanted else wanted.get("enum")
    choices = wanted.get("anyOf") or wanted.get("oneOf")
    kinds = wanted.get("type")
    if "$ref" in wanted:
        yield from simple(_referred(wanted["$ref"], root), root, depth + 1)
    elif isinstance(options, list) and options:
        yield from ({"const": option} for option in options)
    elif isinstance(choices, list):
        beside = {key: wanted[key] for key in wanted if key not in ("anyOf", "oneOf")}
        for choice in choices:
            merged = beside | choice if isinstance(choice, dict) else beside
            yield from simple(merged, root, depth + 1)
    else:
        untyped = {key: wanted[key] for key in wanted if key != "type"}
        for kind in kinds if isinstance(kinds, list) and kinds else [kinds]:
            yield untyped | ({"type": kind} if isinstance(kind, str) else {})


def _referred(reference: Any, root: dict[str, Any]) -> Any:
    """Return the part of the schema that ``#/a/b`` names; True, which allows anything, if there is
    none.
    """
    part: Any = root
    for key in str(reference).removeprefix("#").strip("/").split("/"):
        if key:
            part = part.get(key, True) if isinstance(part, dict) else True
    return part
