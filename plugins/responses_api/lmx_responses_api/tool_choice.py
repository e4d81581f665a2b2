"""Whether the model calls tools, and which."""

from __future__ import annotations

from collections.abc import Iterator

from attrs import frozen

from lmx_kernel.dialect.fields import JsonObject
from lmx_kernel.dialect.tools import required
from lmx_kernel.errors import InvalidRequestError, UnsupportedFieldError
from lmx_kernel.types import ToolChoice
from lmx_responses_api.query import convert
from lmx_responses_api.schema import ResponseBody
from lmx_responses_api.toolbox import OfferedTool, Toolbox

CALLABLE = frozenset({"function", "custom"})


@frozen(kw_only=True)
class NamedTool:
    """A tool by its name."""

    type: str
    name: str | None = None
    namespace: str | None = None


@frozen(kw_only=True)
class AllowedTools:
    """The tools that may be called; ``required`` if one of them must be."""

    mode: str = "auto"
    tools: list[NamedTool]


@frozen(kw_only=True)
class Choice:
    """What is asked of the model.

    :ivar written: the tool whose input is the whole text of the answer, which its grammar can be
        held to. The model calls nothing then.
    :ivar is_named: one tool is asked for, which is called once, as clients expect.
    """

    tool_choice: ToolChoice
    written: OfferedTool | None = None
    is_named: bool = False


def choice(body: ResponseBody, toolbox: Toolbox) -> Choice:
    """Return what the field ``tool_choice`` asks for.

    :raises InvalidRequestError: a tool that is asked for is not offered.
    :raises UnsupportedFieldError: it is a hosted one.
    """
    given = body.tool_choice
    if given is None or given in ("auto", "none"):
        return Choice(tool_choice=ToolChoice(mode=str(given or "auto")))
    if isinstance(given, str):
        return Choice(tool_choice=required(toolbox.tools))
    if given.get("type") == "allowed_tools":
        return Choice(tool_choice=_allowed(given, toolbox))
    named = convert("tool_choice", given, NamedTool)
    name = _model_name("tool_choice", named, toolbox)
    tool = toolbox.called(name)
    if tool is not None and tool.grammar is not None:
        return Choice(tool_choice=ToolChoice(mode="none"), written=tool, is_named=True)
    return Choice(tool_choice=ToolChoice(mode="required", names=(name,)), is_named=True)


def _allowed(given: JsonObject, toolbox: Toolbox) -> ToolChoice:
    allowed = convert("tool_choice", given, AllowedTools)
    if allowed.mode not in ("auto", "required"):
        where = "tool_choice.mode"
        raise InvalidRequestError(f"{where}: must be auto or required", param=where)
    names = tuple(_names(allowed, toolbox))
    if not names:  # otherwise an empty list would mean all of them
        if allowed.mode == "required":
            where = "tool_choice.tools"
            raise InvalidRequestError(f"{where}: none of them can be called", param=where)
        return ToolChoice(mode="none")
    return ToolChoice(mode=allowed.mode, names=names)


def _names(allowed: AllowedTools, toolbox: Toolbox) -> Iterator[str]:
    for index, named in enumerate(allowed.tools):
        if named.type in CALLABLE or allowed.mode == "required":
            yield _model_name(f"tool_choice.tools[{index}]", named, toolbox)


def _model_name(where: str, named: NamedTool, toolbox: Toolbox) -> str:
    if named.type not in CALLABLE:
        path = f"{where}.type"
        raise UnsupportedFieldError(f"{path}: {named.type} is not supported", param=path)
    path = f"{where}.name"
    if named.name is None:
        raise InvalidRequestError(f"{path}: this field is required", param=path)
    found = toolbox.model_name(named.name, named.namespace)
    if found is None:
        raise InvalidRequestError(f"{path}: there is no tool {named.name!r}", param=path)
    return found
