"""Answers as chunks in server-sent events.

Comments are the only heartbeat that every client of this dialect bears. Clients take a clean end
for success, with or without ``[DONE]``, so a failure is a frame of its own.
"""

from __future__ import annotations

import msgspec
from attrs import define, field

from lmx_kernel.dialect.error_object import error_body
from lmx_kernel.errors import LmxError
from lmx_kernel.http.sse import COMMENT, FrameWriter, encode_event
from lmx_kernel.types import Admitted, Event, Usage
from lmx_openai_api.rendering import Chunker, Envelope, JsonObject, usage_object

DONE = encode_event(b"[DONE]")


@define(kw_only=True)
class ChunkWriter(FrameWriter):
    """Writes one answer as chunks.

    :param choices: how many the answer has.
    :param include_usage: whether the last chunk has the usage.
    """

    envelope: Envelope
    choices: int
    include_usage: bool
    _chunker: Chunker = field(init=False)
    _head: bytes = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._chunker = Chunker(self.envelope.rendering)
        self._renew_head()

    def _renew_head(self) -> None:
        """Take in the fingerprint, which is not known before the admission."""
        self._head = b"data: " + self.envelope.chunk_head()

    def opening(self) -> bytes:
        """Return the first chunk of each choice; a comment where it has none."""
        self._renew_head()
        openings = map(self.envelope.rendering.opening, range(self.choices))
        return b"".join(self._chunk(choice) for choice in openings if choice) or COMMENT

    def event(self, event: Event) -> bytes:
        """Return the chunk for an event, if it has one."""
        if isinstance(event, Admitted):
            self._renew_head()
        choice = self._chunker.choice(event)
        return self._chunk(choice) if choice else b""

    def failure(self, error: LmxError) -> bytes:
        """Return the frame of an error."""
        return encode_event(msgspec.json.encode(error_body(error)))

    def closing(self, usage: Usage) -> bytes:
        """Return the chunk with the usage, if it was asked for, and ``[DONE]``."""
        if not self.include_usage:
            return DONE
        encoded = msgspec.json.encode(usage_object(usage))
        return b'%b],"usage":%b}\n\n%b' % (self._head, encoded, DONE)

    def _chunk(self, choice: JsonObject) -> bytes:
        return b"%b%b]}\n\n" % (self._head, msgspec.json.encode(choice))
