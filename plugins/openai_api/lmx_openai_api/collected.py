"""What a candidate said, put together from its events."""

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
    """One candidate, as far as it has come.

    :ivar reason: why it ended.
    :ivar logprobs: of all its tokens.
    """

    reason: str = ""
    logprobs: list[Logprobs] = field(factory=list)
    _text: list[str] = field(factory=list)
    _reasoning: list[str] = field(factory=list)
    _calls: list[tuple[ToolCallStarted, list[str]]] = field(factory=list)

    @property
    def text(self) -> str:
        """What it said to the user."""
        return "".join(self._text)

    @property
    def reasoning(self) -> str:
        """What it thought before."""
        return "".join(self._reasoning)

    @property
    def calls(self) -> list[ToolCall]:
        """What it called."""
        return [ToolCall(call.id, call.name, "".join(parts)) for call, parts in self._calls]

    def add(self, event: Event) -> None:
        """Take in what the candidate says next."""
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
                self.reason = event.reason


async def listen(answer: Answer) -> dict[int, CollectedAnswer]:
    """Read ``answer`` to its end and return what each candidate said, in order.

    :raises LmxError: it failed.
    """
    heard: defaultdict[int, CollectedAnswer] = defaultdict(CollectedAnswer)
    async for event in answer:
        if not isinstance(event, Admitted):
            heard[event.candidate].add(event)
    return dict(sorted(heard.items()))
