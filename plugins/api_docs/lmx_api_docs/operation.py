"""One operation of the API, as OpenAPI has it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from lmx_api_docs.schemas import REF, Schema
from lmx_kernel.interfaces import NO_KEY, ApiSurface, Operation

# Schemas of an operation's body, query (an object), result, accepted, event and error, where it has
# them.
Parts = Mapping[str, Schema]

SECURITY = "key"
JSON = "application/json"

FIELD = re.compile(r"{(\w+)(?::(\w+)(?:\(.*?\))?)?}")
_CONVERTED: dict[str, Schema] = {
    "int": {"type": "integer"},
    "float": {"type": "number"},
    "uuid": {"type": "string", "format": "uuid"},
}


def plain_path(template: str) -> str:
    """Return a falcon URI template as OpenAPI has it, without converters."""
    return FIELD.sub(r"{\1}", template)


def render(surface: ApiSurface, operation: Operation, parts: Parts) -> dict[str, Any]:
    """Return the operation object."""
    rendered: dict[str, Any] = {
        "operationId": _name(operation),
        "tags": [surface.name],
        "summary": operation.summary,
        "security": _security(surface.scope),
        "parameters": [
            *_path_parameters(operation.path),
            *_query_parameters(parts.get("query", {})),
            *_header_parameters(operation),
        ],
        "responses": {
            str(operation.status): _success(operation, parts),
            **{status: _ref(surface, status) for status in ("4XX", "5XX")},
        },
    }
    if "accepted" in parts:
        rendered["responses"]["202"] = _answer(202, {JSON: {"schema": parts["accepted"]}})
    if "body" in parts:
        content = {JSON: {"schema": parts["body"]}}
        rendered["requestBody"] = {"required": True, "content": content}
    return rendered


def merge(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Return one operation object for a method and a path that two surfaces answer: the second one
    where a request has its header.
    """
    errors = [{"$ref": REF.format(name=f"{each['tags'][0]}_error")} for each in (first, second)]
    answers = [each["responses"]["200"]["content"][JSON]["schema"] for each in (first, second)]
    failed = {JSON: {"schema": {"anyOf": errors}}}
    own = [dict(each, required=False) for each in second["parameters"] if each["in"] != "path"]
    header = next(each["name"] for each in own if each["in"] == "header")
    return {
        **first,
        "tags": [*first["tags"], *second["tags"]],
        "description": f"With the header `{header}`, {second['tags'][0]} answers.",
        "parameters": [*first["parameters"], *own],
        "responses": {
            "200": _answer(200, {JSON: {"schema": {"anyOf": answers}}}),
            "4XX": {"description": "A refusal, in the shape of who answers.", "content": failed},
            "5XX": {"description": "A failure, in the shape of who answers.", "content": failed},
        },
    }


def _security(scope: str) -> list[dict[str, list[str]]]:
    if scope == NO_KEY:
        return []
    return [{SECURITY: [scope] if scope else []}]


def _name(operation: Operation) -> str:
    words = re.findall(r"\w+", plain_path(operation.path))
    return "_".join([operation.method.lower(), *words])


def _ref(surface: ApiSurface, status: str) -> Mapping[str, str]:
    return {"$ref": f"#/components/responses/{surface.name}_{status}"}


def _path_parameters(template: str) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": _CONVERTED.get(converter, {"type": "string", "minLength": 1}),
            **({"description": "May have slashes in it."} if converter == "path" else {}),
        }
        for name, converter in FIELD.findall(template)
    ]


def _query_parameters(query: Schema) -> list[dict[str, Any]]:
    required = query.get("required", ())
    return [
        {"name": name, "in": "query", "required": name in required, "schema": schema}
        for name, schema in query.get("properties", {}).items()
    ]


def _header_parameters(operation: Operation) -> list[dict[str, Any]]:
    if not operation.header:
        return []
    name = operation.header
    return [{"name": name, "in": "header", "required": True, "schema": {"type": "string"}}]


def _success(operation: Operation, parts: Parts) -> dict[str, Any]:
    content: dict[str, Any] = {}
    if "result" in parts:
        kind = "text/*" if operation.result is str else JSON
        content[kind] = {"schema": parts["result"]}
    if operation.streams:
        content[operation.stream_type] = {"schema": _stream(operation, parts)}
    return _answer(operation.status, content)


def _answer(status: int, content: Mapping[str, Any]) -> dict[str, Any]:
    response = {
        "description": HTTPStatus(status).phrase,
        "headers": {"x-request-id": {"$ref": "#/components/headers/x-request-id"}},
    }
    return {**response, "content": content} if content else response


def _stream(operation: Operation, parts: Parts) -> Schema:
    items = {"anyOf": [parts["event"], parts["error"]]} if "event" in parts else {}
    return {
        "type": "string",
        "description": "A stream. The schema is of what all its events or lines carry, in order.",
        "contentMediaType": operation.stream_type,
        "contentSchema": {"type": "array", "items": items},
    }
