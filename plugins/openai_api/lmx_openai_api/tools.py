"""What the model may call, and whether it must."""

from __future__ import annotations

from collections.abc import Sequence

from lmx_kernel.errors import InvalidRequestError
from lmx_kernel.types import Tool, ToolChoice
from lmx_openai_api.checks import check_function, check_json
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
    if given == "required" and not tools:
        raise InvalidRequestError("tool_choice: there are no tools", param="tool_choice")
    return ToolChoice(mode=given or "auto")


def _named(given: NamedTool, tools: Sequence[Tool]) -> str:
    check_function("tool_choice", given.type)
    name = given.function.name if given.function else ""
    if name not in [tool.name for tool in tools]:
        where = "tool_choice.function.name" if name else "tool_choice.function"
        problem = f"there is no tool {name!r}" if name else "this field is required"
        raise InvalidRequestError(f"{where}: {problem}", param=where)
    return name
