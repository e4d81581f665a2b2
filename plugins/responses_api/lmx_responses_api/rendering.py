"""Answers as responses: a pure function of what was asked and the answer's events.

A response that is read again later therefore has the same events with the same numbers.
"""

from __future__ import annotations

from attrs import define, field, frozen

from lmx_kernel.errors import LmxError
from lmx_kernel.interfaces import StoredAnswer
from lmx_kernel.types import Event, Usage
from lmx_responses_api.errors import failure_object
from lmx_responses_api.frames import Frame
from lmx_responses_api.objects import ResponseObject
from lmx_responses_api.output import Output
from lmx_responses_api.output_items import Frames
from lmx_responses_api.response_object import ResponseHead

CANCELLED = "cancelled"


@frozen
class Ending:
    """How an answer ended.

    :param at: in seconds since the epoch.
    :param outcome: ``ok``, ``cancelled`` or an error's code; None if it goes on later.
    :param usage: its tokens; None where the answer itself says it.
    """

    at: float
    outcome: str | None
    usage: Usage | None = None

    @classmethod
    def of(cls, answer: StoredAnswer) -> Ending:
        """Return how a kept answer ended."""
        return cls(answer.ended_at or answer.created_at, answer.outcome, answer.usage)


@define
class Rendering:
    """One response, as its answer's events come.

    Each method returns events of this dialect as they are written.

    :ivar response: the whole response, as the last event that had it showed it.
    :ivar number: of the last event; -1 before the first one.
    :ivar starting_after: events up to this number are left out.
    """

    head: ResponseHead
    starting_after: int = -1
    response: ResponseObject = field(init=False)
    number: int = -1
    _output: Output = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._output = Output(self.head)
        self.response = self.head.unfinished("in_progress")

    def open(self) -> bytes:
        """Begin the response."""
        if not self.head.body.background:
            return self._numbered(
                [
                    _shown("response.created", self.response),
                    _shown("response.in_progress", self.response),
                ]
            )
        queued = self.head.unfinished("queued")
        return self._numbered(
            [
                _shown("response.created", queued),
                _shown("response.queued", queued),
                _shown("response.in_progress", self.response),
            ]
        )

    def add(self, event: Event) -> bytes:
        """Take the next event of the answer."""
        return self._numbered(self._output.add(event))

    def end(self, usage: Usage, ending: Ending) -> bytes:
        """End the response after the answer's last event."""
        if ending.outcome == CANCELLED:
            return self._cut(ending.usage or usage)
        usage = ending.usage or usage
        frames = self._output.close()
        output = self._output.objects()
        if self._output.reason == "length":
            self.response = self.head.whole(
                "incomplete",
                output=output,
                usage=usage,
                incomplete={"reason": "max_output_tokens"},
            )
            return self._numbered([*frames, _shown("response.incomplete", self.response)])
        self.response = self.head.whole(
            "completed", output=output, usage=usage, completed_at=ending.at
        )
        return self._numbered([*frames, _shown("response.completed", self.response)])

    def fail(self, error: LmxError, ending: Ending) -> bytes:
        """End the response after an error, or its events only if it goes on later."""
        usage = ending.usage
        if ending.outcome == CANCELLED:
            return self._cut(usage)
        failure = failure_object(error)
        if ending.outcome is None:
            return self._unnumbered(Frame.of("error", param=None, **failure))
        self._output.cut()
        self.response = self.head.whole(
            "failed", output=self._output.objects(), usage=usage, error=failure
        )
        return self._numbered([_shown("response.failed", self.response)])

    def keepalive(self, *, is_numbered: bool) -> bytes:
        """Return an event that says that the connection lives.

        :param is_numbered: whether it has a number of its own; otherwise it has the last one.
        """
        frame = Frame.of("keepalive")
        return self._numbered([frame]) if is_numbered else self._unnumbered(frame)

    def _cut(self, usage: Usage | None) -> bytes:
        """End a response that was cancelled; there is no event of that name."""
        self._output.cut()
        self.response = self.head.whole("cancelled", output=self._output.objects(), usage=usage)
        return self._numbered([_shown("response.incomplete", self.response)])

    def _numbered(self, frames: Frames) -> bytes:
        written = b""
        for frame in frames:
            self.number += 1
            if self.number > self.starting_after:
                written += frame.numbered(self.number)
        return written

    def _unnumbered(self, frame: Frame) -> bytes:
        """Return an event with the last number, since it has none of its own."""
        return frame.numbered(max(self.number, 0))


def _shown(kind: str, response: ResponseObject) -> Frame:
    return Frame.of(kind, response=response)
