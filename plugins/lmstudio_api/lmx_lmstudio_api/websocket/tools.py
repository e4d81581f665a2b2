"""Tools as the protocol has them."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from lmx_kernel.dialect.fields import FunctionName, JsonObject
from lmx_kernel.dialect.json_values import check_json
from lmx_kernel.dialect.tools import required
from lmx_kernel.errors import UnsupportedFieldError
from lmx_kernel.types import Tool, ToolChoice

FUNCTION = "function"


class FunctionValue(Struct, frozen=True):
    """A function that the model may call."""

    name: FunctionName
    description: str | None = None
    parameters: JsonObject | None = None


class ToolValue(Struct, frozen=True):
    """A tool; all are functions."""

    type: str
    function: FunctionValue


class ToolsValue(Struct, frozen=True):
    """The tools of a request; ``type`` is none or toolArray."""

    type: str = "none"
    tools: list[ToolValue] | None = None
    force: bool | None = None


class ToolChoiceValue(Struct, frozen=True):
    """Whether a tool is called; ``mode`` is none, auto or required."""

    type: str = "generic"
    mode: str = "auto"


def make_tools(where: str, values: Sequence[ToolValue]) -> tuple[Tool, ...]:
    """Return the tools that a client offers.

    :param where: the key that has them.
    :raises InvalidRequestError: naming the tool that is wrong.
    """
    return tuple(_tool(f"{where}[{index}]", value) for index, value in enumerate(values))


def choice_of(
    where: str, tools: Sequence[Tool], given: ToolsValue, choice: ToolChoiceValue | None
) -> ToolChoice:
    """Return whether a tool is called.

    :raises InvalidRequestError: one must be, and there are none.
    """
    mode = choice.mode if choice else "auto"
    if tools and (given.force or mode == "required"):
        return required(tools, path=where)
    return ToolChoice(mode="none" if mode == "none" else "auto")


def _tool(where: str, value: ToolValue) -> Tool:
    if value.type != FUNCTION:
        raise UnsupportedFieldError(f"{where}.type: only functions are supported", param=where)
    check_json(f"{where}.function.parameters", value.function.parameters)
    return Tool(
        name=value.function.name,
        description=value.function.description or "",
        parameters=value.function.parameters or {},
    )
