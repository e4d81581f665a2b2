"""Responses as server-sent events.

Comments keep no agent waiting: some count only events as signs of life, so the heartbeat is one.
It may not come before ``response.created``, which is sent at the admission, or after one heartbeat.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import define

from lmx_kernel.errors import LmxError
from lmx_kernel.http.sse import FrameWriter
from lmx_kernel.types import Event, Usage
from lmx_responses_api.rendering import Ending, Rendering


@define(kw_only=True)
class EventWriter(FrameWriter):
    """Writes one response.

    :param ending: returns how the answer ended, after its end.
    :param numbers_heartbeats: whether a heartbeat has a number of its own. It has not where the
        stream may be read again: the numbers must be the same then.
    """

    rendering: Rendering
    ending: Callable[[], Ending]
    numbers_heartbeats: bool = True

    def opening(self) -> bytes:
        """Return the events that begin a response."""
        return self.rendering.open()

    def event(self, event: Event) -> bytes:
        """Return the events for one of the answer's."""
        return self.rendering.add(event)

    def heartbeat(self) -> bytes:
        """Return an event that clients count as a sign of life, and ignore otherwise."""
        return self.rendering.keepalive(is_numbered=self.numbers_heartbeats)

    def failure(self, error: LmxError) -> bytes:
        """Return ``response.failed``, which no client ignores. Only where the response itself did
        not fail, but goes on after a restart of the server, it is an event ``error``.
        """
        return self.rendering.fail(error, self.ending())

    def closing(self, usage: Usage) -> bytes:
        """Return the events that end the response."""
        return self.rendering.end(usage, self.ending())
