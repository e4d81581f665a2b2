"""What an answer must look like."""

from __future__ import annotations

from attrs import evolve

from lmx_kernel.dialect.json_values import schema_constraint
from lmx_kernel.errors import InvalidRequestError
from lmx_kernel.types import Constraint
from lmx_openai_api.schema import GenerationBody, ResponseFormat


def constraint(body: GenerationBody) -> Constraint | None:
    """Return what the text of an answer to ``body`` must look like; None for anything.

    :raises InvalidRequestError: it must look like two things, or a schema is missing.
    """
    wanted = {
        "response_format": _formatted(body.response_format),
        "guided_regex": _guided("regex", body.guided_regex),
        "guided_grammar": _guided("lark", body.guided_grammar),
    }
    given = [evolve(found, param=name) for name, found in wanted.items() if found]
    if len(given) > 1:
        first, *_, last = sorted(str(one.param) for one in given)
        raise InvalidRequestError(f"{first}: does not go with {last}", param=first)
    return given[0] if given else None


def _guided(kind: str, source: str | None) -> Constraint | None:
    return Constraint(kind, source) if source else None


def _formatted(given: ResponseFormat | None) -> Constraint | None:
    if given is None or given.type == "text":
        return None
    if given.type == "json_object":
        if given.schema is None:
            return Constraint("json_object")
        return schema_constraint("response_format.schema", given.schema)
    if given.json_schema is None:
        where = "response_format.json_schema"
        raise InvalidRequestError(f"{where}: this field is required", param=where)
    return schema_constraint("response_format.json_schema.schema", given.json_schema.schema)
