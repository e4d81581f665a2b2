"""For chat formats: how models write reasoning and calls."""

from lmx_kernel.text.formats import (
    CallArguments,
    CallEnded,
    CallStarted,
    CallSyntax,
    Format,
    FormatKind,
    Parser,
    Piece,
    PlainFormat,
    Reasoning,
    Text,
    find_format,
    offered_tools,
)
from lmx_kernel.text.formats.chat_format import (
    ChatFormat,
)
from lmx_kernel.text.formats.explanation import (
    introduce,
)
from lmx_kernel.text.formats.json_reader import (
    MAX_DEPTH,
    read_arguments,
    read_calls,
)
from lmx_kernel.text.formats.json_schema import (
    arguments_schema,
    normal_form,
)
from lmx_kernel.text.formats.reader import (
    SPACE,
    BrokenCallError,
    Reader,
    Reading,
    ReadingParser,
)

__all__ = [
    "MAX_DEPTH",
    "SPACE",
    "BrokenCallError",
    "CallArguments",
    "CallEnded",
    "CallStarted",
    "CallSyntax",
    "ChatFormat",
    "Format",
    "FormatKind",
    "Parser",
    "Piece",
    "PlainFormat",
    "Reader",
    "Reading",
    "ReadingParser",
    "Reasoning",
    "Text",
    "arguments_schema",
    "find_format",
    "introduce",
    "normal_form",
    "offered_tools",
    "read_arguments",
    "read_calls",
]
