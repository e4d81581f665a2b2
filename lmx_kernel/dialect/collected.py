"""Whole answers, collected from their events."""

from __future__ import annotations

from collections import defaultdict

from attrs import define, field

from lmx_kernel.interfaces import Answer
from lmx_kernel.types import (
    Admitted,
    Event,
    Finished,
    Logprobs,
    ReasoningDelta,
    TextDelta,
    ToolCall,
    ToolCallDelta,
    ToolCallStarted,
)


@define
class CollectedAnswer:
    """The output of one candidate so far.

    :ivar reason: why it ended; "" while it goes on.
    :ivar stop: the stop string that ended it; "" for none.
    :ivar logprobs: of all its tokens.
    """

    reason: str = ""
    stop: str = ""
    logprobs: list[Logprobs] = field(factory=list)
    _text: list[str] = field(factory=list)
    _reasoning: list[str] = field(factory=list)
    _calls: list[tuple[ToolCallStarted, list[str]]] = field(factory=list)

    @property
    def text(self) -> str:
        """The text for the user."""
        return "".join(self._text)

    @property
    def reasoning(self) -> str:
        """The reasoning before the text."""
        return "".join(self._reasoning)

    @property
    def calls(self) -> list[ToolCall]:
        """The calls of tools."""
        return [ToolCall(call.id, call.name, "".join(parts)) for call, parts in self._calls]

    def add(self, event: Event) -> None:
        """Add the candidate's next event."""
        match event:
            case TextDelta():
                self._text.append(event.text)
                self.logprobs.extend(event.logprobs)
            case ReasoningDelta():
                self._reasoning.append(event.text)
            case ToolCallStarted():
                self._calls.append((event, []))
            case ToolCallDelta():
                self._calls[event.index][1].append(event.arguments)
            case Finished():
                self.reason, self.stop = event.reason, event.stop


async def collect(answer: Answer) -> dict[int, CollectedAnswer]:
    """Read ``answer`` to its end and return the output of each candidate, in order.

    :raises LmxError: the answer failed.
    """
    collected: defaultdict[int, CollectedAnswer] = defaultdict(CollectedAnswer)
    async for event in answer:
        if not isinstance(event, Admitted):
            collected[event.candidate].add(event)
    return dict(sorted(collected.items()))
