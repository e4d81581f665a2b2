"""What the model may call, and whether it must."""

from __future__ import annotations

from collections.abc import Sequence

from lmx_kernel.dialect.json_values import check_json
from lmx_kernel.dialect.tools import check_offered, required
from lmx_kernel.errors import InvalidRequestError, UnsupportedFieldError
from lmx_kernel.types import Tool, ToolChoice
from lmx_openai_api.schema import NamedTool, ToolItem


def tool(index: int, item: ToolItem) -> Tool:
    """Return the tool at ``index``.

    :raises InvalidRequestError: naming the field that is wrong.
    """
    path = f"tools[{index}]"
    check_function(path, item.type)
    function = item.function
    if function is None:
        where = f"{path}.function"
        raise InvalidRequestError(f"{where}: this field is required", param=where)
    check_json(f"{path}.function.parameters", function.parameters)
    return Tool(
        name=function.name,
        description=function.description or "",
        parameters=function.parameters or {},
        strict=function.strict in (True, "true"),
    )


def tool_choice(given: str | NamedTool | None, tools: Sequence[Tool]) -> ToolChoice:
    """Return whether, and which of ``tools``, the model must call.

    :raises InvalidRequestError: it must, and there is none of that name, or none at all.
    """
    if isinstance(given, NamedTool):
        return ToolChoice(mode="required", names=(_named(given, tools),))
    return required(tools) if given == "required" else ToolChoice(mode=given or "auto")


def check_function(where: str, kind: str) -> None:
    """Refuse whatever is no function.

    :raises UnsupportedFieldError: naming the field.
    """
    if kind != "function":
        where = f"{where}.type"
        raise UnsupportedFieldError(f"{where}: only functions are supported", param=where)


def _named(given: NamedTool, tools: Sequence[Tool]) -> str:
    check_function("tool_choice", given.type)
    if given.function is None:
        where = "tool_choice.function"
        raise InvalidRequestError(f"{where}: this field is required", param=where)
    check_offered(tools, [given.function.name], path="tool_choice.function.name")
    return given.function.name
