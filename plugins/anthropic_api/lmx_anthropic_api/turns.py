"""The turns of a conversation, as the kernel has them.

Turns of the role ``system`` stay where they are, and turns of equal roles stay apart: the text
layer folds them by what the model's chat template takes, see ``lmx_kernel.text.folding``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from lmx_anthropic_api.blocks import as_text, paragraphs, required
from lmx_anthropic_api.schema import ContentBlock, Turn
from lmx_kernel.errors import InvalidRequestError
from lmx_kernel.types import Message, TextPart, Tool, ToolCall

FAILED = "Error: "
UNPARSED = "__unparsedToolInput"
"""The key under which clients keep the text of an input that was no JSON object."""

_ROLES = {
    "tool_use": "assistant",
    "thinking": "assistant",
    "redacted_thinking": "assistant",
    "tool_result": "user",
}
# What other servers did and thought on their own, which models here know nothing of.
_FOREIGN = frozenset({"redacted_thinking", "server_tool_use", "mcp_tool_use", "container_upload"})
_FOREIGN_RESULT = "_tool_result"


def read_turn(index: int, given: Turn, tools: Sequence[Tool]) -> Iterator[Message]:
    """Yield the messages of the turn at ``index``: results of tools, then what the user says.

    :param tools: those that a reference may make known.
    :raises InvalidRequestError: naming the field that is wrong.
    :raises UnsupportedFieldError: naming the block that LMX does not know.
    """
    where = f"messages[{index}].content"
    if isinstance(given.content, str):
        yield Message(given.role, paragraphs([given.content]))
        return
    blocks = list(_known_blocks(where, given.role, given.content))
    if given.role == "assistant":
        yield _assistant(blocks, tools)
        return
    texts = []
    for path, block in blocks:
        if block.type == "tool_result":
            yield _result(path, block, tools)
        else:
            texts.append(as_text(path, block, tools))
    if texts or not blocks:
        yield Message(given.role, paragraphs(texts))


def _known_blocks(
    where: str, role: str, blocks: Sequence[ContentBlock]
) -> Iterator[tuple[str, ContentBlock]]:
    """Yield blocks with their fields, but those that are foreign."""
    for index, block in enumerate(blocks):
        path, kind = f"{where}[{index}]", block.type
        if _ROLES.get(kind, role) != role:
            raise InvalidRequestError(
                f"{path}.type: a message of the role {role!r} has no {kind}", param=f"{path}.type"
            )
        if kind not in _FOREIGN and not kind.endswith(_FOREIGN_RESULT):
            yield path, block


def _assistant(blocks: Sequence[tuple[str, ContentBlock]], tools: Sequence[Tool]) -> Message:
    texts, thoughts, calls = [], [], []
    for path, block in blocks:
        if block.type == "thinking":
            thoughts.append(required(f"{path}.thinking", block.thinking))
        elif block.type == "tool_use":
            calls.append(_call(path, block))
        else:
            texts.append(as_text(path, block, tools))
    return Message(
        "assistant",
        tuple(map(TextPart, filter(None, texts))),
        tool_calls=tuple(calls),
        reasoning="\n\n".join(filter(None, thoughts)) or None,
    )


def _call(path: str, block: ContentBlock) -> ToolCall:
    given = required(f"{path}.input", block.input)
    match given.get(UNPARSED):
        case {"raw": str(raw)}:
            arguments = raw
        case _:
            # Spaced as models write it, so that the prompt is what they wrote.
            arguments = json.dumps(given, ensure_ascii=False)
    return ToolCall(
        required(f"{path}.id", block.id), required(f"{path}.name", block.name), arguments
    )


def _result(path: str, block: ContentBlock, tools: Sequence[Tool]) -> Message:
    call_id = required(f"{path}.tool_use_id", block.tool_use_id)
    if isinstance(block.content, str):
        texts = [block.content]
    elif isinstance(block.content, dict):
        where = f"{path}.content"
        raise InvalidRequestError(f"{where}: text or a list of blocks is required", param=where)
    else:
        texts = [
            as_text(f"{path}.content[{index}]", item, tools)
            for index, item in enumerate(block.content or ())
        ]
    parts = paragraphs(texts)
    if block.is_error:
        parts = (TextPart(FAILED), *parts)
    return Message("tool", parts, tool_call_id=call_id)
