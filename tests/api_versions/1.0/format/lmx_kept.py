"""How a family of models writes tool calls: `CALL name: {"an argument": 1}`."""

from __future__ import annotations

from collections.abc import Sequence

from lmx_kernel.api import Tool
from lmx_kernel.api.formats import (
    BrokenCallError,
    CallEnded,
    CallStarted,
    ChatFormat,
    Reader,
    Reading,
    read_arguments,
)


class Kept(ChatFormat):
    """For models whose chat template has `CALL `."""

    name = "kept"
    signs = ("CALL ",)
    openings = ("CALL ",)
    reasoning_marks = (("<think>", "</think>"),)

    def read_call(self, reader: Reader, mark: str, tools: Sequence[Tool]) -> Reading[None]:
        """Read one call after its opening. It waits where the text ends, and goes on with more.

        :raises BrokenCallError: it is none, so it is text.
        """
        name, _ = yield from reader.upto(": ")
        if name not in {tool.name for tool in tools}:
            raise BrokenCallError
        yield CallStarted(name)
        yield from read_arguments(reader)
        yield CallEnded()
