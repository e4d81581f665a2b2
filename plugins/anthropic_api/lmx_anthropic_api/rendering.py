"""What an answer's events mean in this dialect, whole and streamed alike."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from attrs import frozen
from msgspec import UNSET, UnsetType

from lmx_anthropic_api.objects import (
    Block,
    MessageObject,
    OutputDetails,
    StopReason,
    TextBlock,
    ThinkingBlock,
    ToolUseBlock,
    UsageObject,
)
from lmx_anthropic_api.service_tier import Tier
from lmx_anthropic_api.turns import UNPARSED
from lmx_kernel.interfaces import Answer
from lmx_kernel.types import (
    Event,
    Finished,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallStarted,
    Usage,
)


@frozen
class BlockPiece:
    """More of a block: of the running one if it is of the same kind, and not ``starts``.

    :ivar kind: the type of the block.
    """

    kind: str
    text: str = ""
    starts: ToolCallStarted | None = None


def block_piece(event: Event) -> BlockPiece | None:
    """Return what an event adds to the content; None for nothing."""
    match event:
        case TextDelta(text=text) if text:
            return BlockPiece("text", text)
        case ReasoningDelta(text=text) if text:
            return BlockPiece("thinking", text)
        case ToolCallStarted():
            return BlockPiece("tool_use", starts=event)
        case ToolCallDelta(arguments=text) if text:
            return BlockPiece("tool_use", text)
    return None


def empty_block(piece: BlockPiece) -> Block:
    """Return the block that begins with a piece, without its text."""
    if piece.starts is not None:
        return ToolUseBlock(piece.starts.id, piece.starts.name, {})
    return ThinkingBlock("") if piece.kind == "thinking" else TextBlock("")


def usage_object(usage: Usage, service_tier: Tier | UnsetType = UNSET) -> UsageObject:
    """Return the usage of an answer. What was cached counts as read, and as nothing else."""
    return UsageObject(
        input_tokens=usage.prompt_tokens - usage.cached_tokens,
        cache_read_input_tokens=usage.cached_tokens,
        output_tokens=usage.completion_tokens,
        output_tokens_details=OutputDetails(usage.reasoning_tokens),
        service_tier=service_tier,
    )


def stop_reason(finished: Finished, usage: Usage, max_tokens: int | None) -> StopReason:
    """Return why an answer ended.

    :param max_tokens: what the request allowed; fewer were made where the context was full.
    """
    if finished.reason == "tool_calls":
        return "tool_use"
    if finished.reason == "length":
        is_allowed = max_tokens is None or usage.completion_tokens < max_tokens
        return "model_context_window_exceeded" if is_allowed else "max_tokens"
    return "stop_sequence" if finished.stop else "end_turn"


def stop_sequence(finished: Finished) -> str | None:
    """Return the stop sequence that ended an answer, if one did."""
    return finished.stop or None if finished.reason == "stop" else None


async def whole_message(
    answer: Answer, max_tokens: int | None, service_tier: Tier
) -> MessageObject:
    """Read ``answer`` to its end and return it as one message.

    :param max_tokens: what the request allowed.
    :param service_tier: what the request got.
    :raises LmxError: the answer failed.
    """
    pieces: list[list[BlockPiece]] = []
    finished = Finished(0, "stop")
    async for event in answer:
        if isinstance(event, Finished):
            finished = event
        elif (piece := block_piece(event)) is not None:
            if not pieces or piece.starts or pieces[-1][0].kind != piece.kind:
                pieces.append([])
            pieces[-1].append(piece)
    usage = answer.usage()
    return MessageObject(
        id=message_id(answer),
        model=answer.model,
        content=list(map(_whole_block, pieces)),
        usage=usage_object(usage, service_tier),
        stop_reason=stop_reason(finished, usage, max_tokens),
        stop_sequence=stop_sequence(finished),
    )


def message_id(answer: Answer) -> str:
    """Return the id of a message."""
    return f"msg_{answer.id}"


def _whole_block(pieces: Sequence[BlockPiece]) -> Block:
    text = "".join(piece.text for piece in pieces)
    block = empty_block(pieces[0])
    match block:
        case ToolUseBlock():
            block.input = _parsed(text)
        case ThinkingBlock():
            block.thinking = text
        case TextBlock():
            block.text = text
    return block


def _parsed(text: str) -> dict[str, Any]:
    """Return the input of a call; where an answer was cut within it, in the form that clients give
    to what they cannot parse.
    """
    try:
        value = json.loads(text or "{}")
    except (ValueError, RecursionError):
        value = None
    return value if isinstance(value, dict) else {UNPARSED: {"raw": text, "len": len(text)}}
