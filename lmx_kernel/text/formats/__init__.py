"""Chat formats: what the texts of a model's answer mean, and a kit for the authors of formats."""

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
    Text,
    Thought,
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
    "Text",
    "Thought",
    "find_format",
    "offered_tools",
]
