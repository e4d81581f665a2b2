"""The OpenAPI document of all surfaces."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import structlog

from lmx_api_docs.operation import FIELD, SECURITY, merge, plain_path, render
from lmx_api_docs.schemas import REF, Schema, describe, describe_examples, prose
from lmx_kernel import __version__
from lmx_kernel.errors import InternalError, InvalidRequestError, LmxError
from lmx_kernel.interfaces import ApiSurface, Operation

log = structlog.get_logger(__name__)
_PARTS = ("body", "query", "result", "accepted", "event")
_KEY = {
    "type": "http",
    "scheme": "bearer",
    "description": "A key, where the server has any; the header `x-api-key` takes it too.",
}
_HEADERS = {
    "x-request-id": {
        "description": "The request's name in the server's log: the client's own, if it sent one.",
        "schema": {"type": "string"},
    },
    "x-should-retry": {
        "description": "Whether the same request may succeed later.",
        "schema": {"enum": ["true", "false"]},
    },
    "retry-after": {
        "description": "Seconds to wait before that.",
        "schema": {"type": "integer", "minimum": 1},
    },
}


def build(surfaces: Iterable[ApiSurface]) -> dict[str, Any]:
    """Return the document of ``surfaces``. One that cannot be described is left out, and the
    document says so.
    """
    surfaces = list(surfaces)
    try:
        return _build(surfaces, {})
    # The surfaces are code of plugins: each may fail in any way.
    except Exception:  # noqa: BLE001 - it is logged below, with the surface that it is of
        left_out = {}
        for surface in surfaces:
            try:
                _build([surface], {})
            except Exception as error:
                log.exception("surface_not_described", surface=surface.name)
                left_out[surface.name] = f"{type(error).__name__}: {error}"
        return _build([one for one in surfaces if one.name not in left_out], left_out)


def _build(surfaces: Iterable[ApiSurface], left_out: Mapping[str, str]) -> dict[str, Any]:
    surfaces = sorted(surfaces, key=lambda surface: surface.name)
    operations = [(surface, one) for surface in surfaces for one in surface.operations()]
    operations.sort(key=lambda pair: bool(pair[1].header))  # a path's owner comes first
    parts, schemas = _describe([operation for _, operation in operations])
    paths: defaultdict[str, dict[str, Any]] = defaultdict(dict)
    names: dict[str, str] = {}
    for (surface, operation), found in zip(operations, parts, strict=True):
        found["error"] = {"$ref": REF.format(name=_error_name(surface))}
        path = plain_path(operation.path)
        methods = paths[names.setdefault(FIELD.sub("{}", path), path)]
        rendered, method = render(surface, operation, found), operation.method.lower()
        methods[method] = merge(methods[method], rendered) if method in methods else rendered
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "LMX",
            "version": __version__,
            "description": _description(left_out),
        },
        "tags": [{"name": each.name, "description": prose(each.__doc__)} for each in surfaces],
        "paths": paths,
        "components": {
            "schemas": schemas | {_error_name(each): _error_schema(each) for each in surfaces},
            "responses": dict(pair for each in surfaces for pair in _error_responses(each)),
            "headers": _HEADERS,
            "securitySchemes": {SECURITY: _KEY},
        },
    }


def _description(left_out: Mapping[str, str]) -> str:
    lines = ["Every API that this server speaks."]
    lines += [f"Left out: `{name}`, since it failed ({why})." for name, why in left_out.items()]
    return "\n\n".join(lines)


def _describe(
    operations: Sequence[Operation],
) -> tuple[list[dict[str, Schema]], dict[str, Schema]]:
    """Return the schemas of each operation's parts, and all components that these refer to."""
    given = [
        {name: getattr(operation, name) for name in _PARTS if getattr(operation, name) is not None}
        for operation in operations
    ]
    schemas, components = describe([part for parts in given for part in parts.values()])
    rest = iter(schemas)
    described = [{name: next(rest) for name in parts} for parts in given]
    queries = {}
    for parts in described:
        if "query" in parts:  # its fields become parameters
            name = parts["query"]["$ref"].rpartition("/")[2]
            parts["query"] = queries[name] = components[name]
    return described, {k: v for k, v in components.items() if k not in queries}


# --- errors ---


def _error_name(surface: ApiSurface) -> str:
    return f"{surface.name}_error"


def _error_schema(surface: ApiSurface) -> Schema:
    """Return what the surface's errors look like, told from two of them."""
    examples = [InternalError("x"), InvalidRequestError("x", param="x")]
    return describe_examples([surface.render_error(example) for example in examples])


def _error_responses(surface: ApiSurface) -> Iterator[tuple[str, Any]]:
    codes: defaultdict[int, set[str]] = defaultdict(set)
    for error in _family(LmxError):
        codes[error.status].add(error.code)
    schema = {"$ref": REF.format(name=_error_name(surface))}
    for group in "45":
        lines = [
            f"{status}: {', '.join(f'`{code}`' for code in sorted(codes[status]))}"
            for status in sorted(codes)
            if str(status).startswith(group)
        ]
        yield (
            f"{surface.name}_{group}XX",
            {
                "description": "\n\n".join(lines),
                "headers": {
                    name: {"$ref": f"#/components/headers/{name}"} for name in sorted(_HEADERS)
                },
                "content": {"application/json": {"schema": schema}},
            },
        )


def _family(cls: type[LmxError]) -> Iterator[type[LmxError]]:
    for child in cls.__subclasses__():
        yield child
        yield from _family(child)
