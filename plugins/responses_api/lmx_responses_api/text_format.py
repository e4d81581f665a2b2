"""What the text of an answer must look like."""

from __future__ import annotations

from lmx_kernel.dialect.json_values import schema_constraint
from lmx_kernel.errors import InvalidRequestError
from lmx_kernel.types import Constraint
from lmx_responses_api.schema import ResponseBody
from lmx_responses_api.toolbox import OfferedTool


def constraint(body: ResponseBody, written: OfferedTool | None) -> Constraint | None:
    """Return what the text must look like; None for anything.

    :param written: the tool whose input the whole text is.
    :raises InvalidRequestError: it must look like two things, or a schema is missing.
    """
    wanted = _formatted(body)
    if written is None or written.grammar is None:
        return wanted
    if wanted is not None:
        raise InvalidRequestError("text.format: does not go with tool_choice", param="text.format")
    return Constraint("lark", written.grammar, param=f"{written.path}.format.definition")


def _formatted(body: ResponseBody) -> Constraint | None:
    given = body.text and body.text.format
    if not given or given.type == "text":
        return None
    if given.type == "json_object":
        return Constraint("json_object", param="text.format")
    where = "text.format.schema"
    if given.schema is None:
        raise InvalidRequestError(f"{where}: this field is required", param=where)
    return schema_constraint(where, given.schema)
