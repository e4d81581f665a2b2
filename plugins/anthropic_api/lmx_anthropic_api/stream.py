"""Answers as server-sent events.

Clients take a stream without its beginning, or with an event that has no name, for a broken one,
and a clean end for success; so a failure is an event of its own.
"""

from __future__ import annotations

from typing import Any

import msgspec
from attrs import define, field

from lmx_anthropic_api.errors import error_body
from lmx_anthropic_api.objects import (
    BlockDelta,
    BlockStart,
    BlockStop,
    InputJsonDelta,
    MessageDelta,
    MessageObject,
    MessageStart,
    MessageStop,
    Ping,
    SignatureDelta,
    Stop,
    StreamEvent,
    TextDelta,
    ThinkingDelta,
    UsageObject,
)
from lmx_anthropic_api.rendering import (
    BlockPiece,
    block_piece,
    empty_block,
    stop_reason,
    stop_sequence,
    usage_object,
)
from lmx_anthropic_api.service_tier import Tier
from lmx_kernel.errors import LmxError
from lmx_kernel.http.sse import FrameWriter, encode_event
from lmx_kernel.types import Admitted, Event, Finished, PromptProgress, Usage

_encode = msgspec.json.Encoder().encode
_DELTAS: dict[str, Any] = {
    "text": TextDelta,
    "thinking": ThinkingDelta,
    "tool_use": InputJsonDelta,
}
_DELTA_END = b"}}\n\n"


@define(kw_only=True)
class MessageWriter(FrameWriter):
    """Writes one answer as the events of a message.

    The message starts when the engine does: what was cached is known then, so that its usage is
    true from the beginning. What is written before are pings.

    :param id: of the message.
    :param max_tokens: of the request.
    :param service_tier: what the request got.
    """

    id: str
    model: str
    max_tokens: int | None
    service_tier: Tier
    _prompt_tokens: int = 0
    _has_started: bool = False
    _index: int = -1
    _kind: str = ""
    _is_empty: bool = True
    _head: bytes = b""
    _finished: Finished = field(factory=lambda: Finished(0, "stop"))

    def event(self, event: Event) -> bytes:
        """Return the frames of an event, with those that must stand before them."""
        if isinstance(event, Admitted):
            self._prompt_tokens = event.prompt_tokens
            return b""
        cached = event.cached if isinstance(event, PromptProgress) else 0
        frames = self._started(cached)
        if isinstance(event, Finished):
            self._finished = event
            return frames + self._stopped()
        piece = block_piece(event)
        return frames + self._piece(piece) if piece else frames

    def heartbeat(self) -> bytes:
        """Return a ping: every client of this dialect counts it as a sign of life."""
        return _frame(Ping())

    def failure(self, error: LmxError) -> bytes:
        """Return the event of an error."""
        return encode_event(_encode(error_body(error)), event="error")

    def closing(self, usage: Usage) -> bytes:
        """Return the reason why the message ended, its whole usage, and its end."""
        stop = Stop(
            stop_reason(self._finished, usage, self.max_tokens), stop_sequence(self._finished)
        )
        return _frame(MessageDelta(stop, usage_object(usage))) + _frame(MessageStop())

    # --- blocks ---

    def _piece(self, piece: BlockPiece) -> bytes:
        frames = b""
        if piece.starts or piece.kind != self._kind:
            frames = self._stopped()
            self._index += 1
            self._kind, self._is_empty = piece.kind, True
            frames += _frame(BlockStart(self._index, empty_block(piece)))
            # Of the frames of one block only the text differs.
            delta = _frame(BlockDelta(self._index, _DELTAS[piece.kind]("")))
            self._head = delta.removesuffix(b'""' + _DELTA_END)
        if piece.text:
            self._is_empty = False
            frames += self._head + _encode(piece.text) + _DELTA_END
        return frames

    def _stopped(self) -> bytes:
        """Return the end of the running block, if there is one."""
        if not self._kind:
            return b""
        frames = b""
        if self._kind == "thinking":
            frames = self._delta(SignatureDelta(""))
        elif self._kind == "tool_use" and self._is_empty:
            frames = self._delta(InputJsonDelta("{}"))
        self._kind = ""
        return frames + _frame(BlockStop(self._index))

    def _delta(self, delta: Any) -> bytes:
        return _frame(BlockDelta(self._index, delta))

    def _started(self, cached: int) -> bytes:
        if self._has_started:
            return b""
        self._has_started = True
        usage = UsageObject(
            self._prompt_tokens - cached, cached, output_tokens=0, service_tier=self.service_tier
        )
        message = MessageObject(id=self.id, model=self.model, content=[], usage=usage)
        return _frame(MessageStart(message))


def _frame(event: StreamEvent) -> bytes:
    name: Any = event.__struct_config__.tag
    return encode_event(_encode(event), event=name)
