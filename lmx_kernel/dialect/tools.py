"""Tools as a client offers them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lmx_kernel.errors import InvalidRequestError
from lmx_kernel.types import Tool, ToolChoice


def required(
    tools: Sequence[Tool], names: Iterable[str] = (), *, path: str = "tool_choice"
) -> ToolChoice:
    """Return the choice of a request whose answer must call a tool.

    :param names: those that it may call; empty for all.
    :param path: the field that says so.
    :raises InvalidRequestError: there are no tools, or none of such a name.
    """
    if not tools:
        raise InvalidRequestError(f"{path}: there are no tools", param=path)
    chosen = tuple(names)
    check_offered(tools, chosen, path=path)
    return ToolChoice(mode="required", names=chosen)


def check_offered(tools: Iterable[Tool], names: Iterable[str], *, path: str) -> None:
    """Refuse names that no tool has.

    :raises InvalidRequestError: naming the field at ``path``.
    """
    offered = {tool.name for tool in tools}
    for name in names:
        if name not in offered:
            raise InvalidRequestError(f"{path}: there is no tool {name!r}", param=path)
