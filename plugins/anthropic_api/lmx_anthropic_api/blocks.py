"""Blocks of content as text.

A block that the model cannot read is replaced by a note: it stays in the conversation, and to
refuse it would end the session of an agent that once read a picture.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from lmx_anthropic_api.schema import ContentBlock, ResultItem
from lmx_anthropic_api.tools import introduce
from lmx_kernel.errors import InvalidRequestError, UnsupportedFieldError
from lmx_kernel.types import TextPart, Tool

T = TypeVar("T")
IMAGE = "[image omitted: this model reads text only]"
DOCUMENT = "[document omitted: this model reads text only]"
_BLANK_LINE = TextPart("\n\n")


def required(where: str, value: T | None) -> T:
    """Return ``value``.

    :raises InvalidRequestError: it is missing.
    """
    if value is None:
        raise InvalidRequestError(f"{where}: this field is required", param=where)
    return value


def paragraphs(texts: Iterable[str]) -> tuple[TextPart, ...]:
    """Return texts with blank lines between them. One text is the same as a block or as a string:
    clients change between the two from turn to turn.
    """
    parts: list[TextPart] = []
    for text in filter(None, texts):
        parts += [_BLANK_LINE, TextPart(text)] if parts else [TextPart(text)]
    return tuple(parts)


def as_text(where: str, block: ContentBlock | ResultItem, tools: Sequence[Tool]) -> str:
    """Return what the model reads of a block.

    :param where: the block's field.
    :param tools: those that a reference may make known.
    :raises InvalidRequestError: a field that this type of block needs is missing.
    :raises UnsupportedFieldError: its type is none that LMX knows, or has no place here.
    """
    match block.type:
        case "text":
            return required(f"{where}.text", block.text)
        case "image":
            return IMAGE
        case "document":
            return "\n".join(_document(block))
        case "search_result":
            return "\n".join(_search_result(block))
        case "tool_reference":
            return introduce(required(f"{where}.tool_name", block.tool_name), tools)
    raise UnsupportedFieldError(
        f"{where}.type: {block.type!r} is not supported here", param=f"{where}.type"
    )


def _document(block: ContentBlock | ResultItem) -> Iterator[str]:
    """Yield the title and the text of a document; a note in place of one that is no text."""
    if block.title:
        yield block.title
    source = block.source if isinstance(block.source, dict) else {}
    text = source.get("data") if source.get("type") == "text" else source.get("content")
    if isinstance(text, list):
        text = "\n".join(str(part.get("text", IMAGE)) for part in text if isinstance(part, dict))
    yield text if isinstance(text, str) else DOCUMENT


def _search_result(block: ContentBlock | ResultItem) -> Iterator[str]:
    yield from filter(None, (block.title, block.source if isinstance(block.source, str) else ""))
    for item in block.content if isinstance(block.content, list) else ():
        yield item.text or ""
