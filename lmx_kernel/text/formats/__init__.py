"""Chat formats: how models write reasoning and calls, and a kit for the authors of formats."""

from lmx_kernel.text.formats.protocol import (
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

__all__ = [
    "CallArguments",
    "CallEnded",
    "CallStarted",
    "CallSyntax",
    "Format",
    "FormatKind",
    "Parser",
    "Piece",
    "PlainFormat",
    "Reasoning",
    "Text",
    "find_format",
    "offered_tools",
]
