"""Answers as responses: a pure function of what was asked and the answer's events.

A response that is read again later therefore has the same events with the same numbers.
"""

from __future__ import annotations

from collections.abc import Iterable

from attrs import define, field, frozen

from lmx_kernel.dialect.fields import JsonObject
from lmx_kernel.errors import LmxError
from lmx_kernel.interfaces import StoredAnswer
from lmx_kernel.types import Event, Usage
from lmx_responses_api.errors import failure_object
from lmx_responses_api.objects import ResponseObject
from lmx_responses_api.output import Output
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

    Each method returns events of this dialect, with their numbers.

    :ivar response: the whole response, as the last event that had it showed it.
    :ivar number: of the last event; -1 before the first one.
    """

    head: ResponseHead
    response: ResponseObject = field(init=False)
    number: int = -1
    _output: Output = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._output = Output(self.head)
        self.response = self.head.unfinished("in_progress")

    def open(self) -> list[JsonObject]:
        """Begin the response."""
        if not self.head.body.background:
            return [
                self._shown("response.created", self.response),
                self._shown("response.in_progress", self.response),
            ]
        queued = self.head.unfinished("queued")
        return [
            self._shown("response.created", queued),
            self._shown("response.queued", queued),
            self._shown("response.in_progress", self.response),
        ]

    def add(self, event: Event) -> list[JsonObject]:
        """Take the next event of the answer."""
        return self._numbered(self._output.add(event))

    def end(self, usage: Usage, ending: Ending) -> list[JsonObject]:
        """End the response after the answer's last event."""
        if ending.outcome == CANCELLED:
            return self._cut(ending.usage or usage)
        usage = ending.usage or usage
        events = self._numbered(self._output.close())
        output = self._output.objects()
        if self._output.reason == "length":
            self.response = self.head.whole(
                "incomplete",
                output=output,
                usage=usage,
                incomplete={"reason": "max_output_tokens"},
            )
            return [*events, self._shown("response.incomplete", self.response)]
        self.response = self.head.whole(
            "completed", output=output, usage=usage, completed_at=ending.at
        )
        return [*events, self._shown("response.completed", self.response)]

    def fail(self, error: LmxError, ending: Ending) -> list[JsonObject]:
        """End the response after an error, or its events only if it goes on later."""
        usage = ending.usage
        if ending.outcome == CANCELLED:
            return self._cut(usage)
        if ending.outcome is None:
            return [{**self._repeated("error"), "param": None, **failure_object(error)}]
        self._output.cut()
        self.response = self.head.whole(
            "failed", output=self._output.objects(), usage=usage, error=failure_object(error)
        )
        return [self._shown("response.failed", self.response)]

    def keepalive(self, *, is_numbered: bool) -> JsonObject:
        """Return an event that says that the connection lives.

        :param is_numbered: whether it has a number of its own; otherwise it has the last one.
        """
        if is_numbered:
            self.number += 1
        return self._repeated("keepalive")

    def _repeated(self, kind: str) -> JsonObject:
        """Return an event with the last number."""
        return {"type": kind, "sequence_number": max(self.number, 0)}

    def _cut(self, usage: Usage | None) -> list[JsonObject]:
        """End a response that was cancelled; there is no event of that name."""
        self._output.cut()
        self.response = self.head.whole("cancelled", output=self._output.objects(), usage=usage)
        return [self._shown("response.incomplete", self.response)]

    def _shown(self, kind: str, response: ResponseObject) -> JsonObject:
        self.number += 1
        return {"type": kind, "sequence_number": self.number, "response": response}

    def _numbered(self, events: Iterable[JsonObject]) -> list[JsonObject]:
        numbered = []
        for event in events:
            self.number += 1
            numbered.append({"type": event["type"], "sequence_number": self.number, **event})
        return numbered
