"""Chats of ``/api/v1`` as server-sent events; ``chat.end`` is the last one, after an error too."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from attrs import define

from lmx_kernel.errors import LmxError
from lmx_kernel.http.sse import COMMENT, FrameWriter, encode_event
from lmx_kernel.interfaces import Answer
from lmx_kernel.types import Event, Usage
from lmx_lmstudio_api.v1.chat_objects import ChatEvent
from lmx_lmstudio_api.v1.load_watch import LoadWatch
from lmx_lmstudio_api.v1.rendering import ChatRendering


@define(kw_only=True)
class ChatWriter(FrameWriter):
    """Writes one answer.

    :param answer: tells what a failed answer cost.
    :param watch: has the news of the model's load, which are written in place of a heartbeat.
    :param response_id: None if the answer is not kept.
    """

    rendering: ChatRendering
    answer: Answer
    watch: LoadWatch
    response_id: str | None

    def opening(self) -> bytes:
        """Return the event that begins a chat."""
        return _frames(self.rendering.open())

    def event(self, event: Event) -> bytes:
        """Return the events for one of the answer's, after those of a load that came before."""
        return self._news() + _frames(self.rendering.add(event))

    def heartbeat(self) -> bytes:
        """Return the news of a load; a comment if there are none."""
        return self._news() or COMMENT

    def failure(self, error: LmxError) -> bytes:
        """Return the error, and the end."""
        return self._news() + _frames(self.rendering.fail(error, self.answer.usage()))

    def closing(self, usage: Usage) -> bytes:
        """Return the end."""
        return _frames(self.rendering.end(usage, self.response_id))

    def _news(self) -> bytes:
        return b"".join(_frames(self.rendering.load(event)) for event in self.watch.take())


def _frames(events: Iterable[ChatEvent]) -> bytes:
    return b"".join(
        encode_event(msgspec.json.encode(event), event=event["type"]) for event in events
    )
