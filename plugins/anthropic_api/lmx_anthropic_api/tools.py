"""What the model may call, and whether it must.

A client that searches tools sends those it found with ``defer_loading``, and refers to them by a
``tool_reference`` in a message. Such a tool may be called, but the chat template does not present
it: each tool that is added to its list would change the prompt from the beginning. It is introduced
where it is referred to.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

import structlog

from lmx_anthropic_api.schema import ToolChoiceItem, ToolItem
from lmx_kernel.dialect.json_values import check_json
from lmx_kernel.dialect.tools import check_offered
from lmx_kernel.dialect.tools import required as must_call
from lmx_kernel.errors import InvalidRequestError, UnsupportedFieldError
from lmx_kernel.types import Tool, ToolChoice

CUSTOM = "custom"
# Tools of Anthropic's servers that clients send without being asked to.
_UNASKED = ("web_search_",)

_log = structlog.get_logger(__name__)


def read_tools(items: Sequence[ToolItem]) -> Iterator[Tool]:
    """Yield the tools that the model may call.

    :raises InvalidRequestError: naming the field that is wrong.
    :raises UnsupportedFieldError: one is a tool of a server, which LMX does not have.
    """
    for index, item in enumerate(items):
        where = f"tools[{index}]"
        if item.type not in (None, CUSTOM):
            _leave_out(where, item)
            continue
        for name in ("name", "input_schema"):
            if getattr(item, name) is None:
                field = f"{where}.{name}"
                raise InvalidRequestError(f"{field}: this field is required", param=field)
        check_json(f"{where}.input_schema", item.input_schema)
        yield Tool(
            name=item.name or "",
            description=item.description or "",
            parameters=item.input_schema or {},
            strict=bool(item.strict),
            hidden=bool(item.defer_loading),
        )


def read_choice(given: ToolChoiceItem | None, tools: Sequence[Tool]) -> ToolChoice:
    """Return whether, and which of ``tools``, the model must call.

    :raises InvalidRequestError: it must, and there is none of that name, or none at all.
    """
    if given is None or given.type in ("auto", "none"):
        return ToolChoice(mode=given.type if given else "auto")
    if given.type == "any":
        return must_call(tools)
    if given.name is None:
        where = "tool_choice.name"
        raise InvalidRequestError(f"{where}: this field is required", param=where)
    check_offered(tools, [given.name], path="tool_choice.name")
    return ToolChoice(mode="required", names=(given.name,))


def is_parallel(given: ToolChoiceItem | None) -> bool:
    """Return whether one answer may have several calls; a tool that is asked for by name is called
    once.
    """
    return given is None or not (given.disable_parallel_tool_use or given.type == "tool")


def introduce(name: str, tools: Sequence[Tool]) -> str:
    """Return what a reference to a tool tells the model: how it is called."""
    tool = next((tool for tool in tools if tool.name == name), None)
    if tool is None:
        return f"[The tool {name} is not available.]"
    function = {"name": name, "description": tool.description, "parameters": tool.parameters}
    return f"You can call this tool now:\n{json.dumps(function, ensure_ascii=False)}"


def _leave_out(where: str, item: ToolItem) -> None:
    """Leave out a tool of a server, if a client would send it in any case.

    :raises UnsupportedFieldError: somebody wants it.
    """
    if not str(item.type).startswith(_UNASKED):
        raise UnsupportedFieldError(
            f"{where}.type: {item.type} is a tool of Anthropic's servers, which this one does not "
            f"have; only the type {CUSTOM!r} is supported",
            param=f"{where}.type",
        )
    _log.info("server_tool_left_out", type=item.type, name=item.name)
