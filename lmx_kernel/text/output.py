"""One candidate's tokens to events: text, reasoning, calls and the end."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from lmx_kernel.engine.protocol import Tokenizer, TokenLogprobs
from lmx_kernel.text.detokenizer import Detokenizer
from lmx_kernel.text.formats.protocol import (
    CallArguments,
    CallEnded,
    CallStarted,
    Parser,
    Piece,
    Text,
)
from lmx_kernel.text.stops import StopScanner
from lmx_kernel.types import (
    Event,
    Finished,
    Logprobs,
    ReasoningDelta,
    TextDelta,
    TokenLogprob,
    ToolCallDelta,
    ToolCallStarted,
)

CALL_ID_CHARS = 24


class CandidateOutput:
    """Reads the tokens of one candidate.

    Its state is a pure function of its tokens: to resume an answer, feed a new one the tokens that
    were sent before, and drop the events.

    :param budget: how many tokens the candidate may have.
    :param seed: what the ids of its calls derive from.
    :param parallel_calls: whether it goes on after a call.
    :ivar finished: why it ended; None while it goes on.
    """

    def __init__(
        self,
        candidate: int,
        *,
        tokenizer: Tokenizer,
        parser: Parser,
        stops: Sequence[str],
        budget: int,
        strip_space: bool,
        seed: int = 0,
        parallel_calls: bool = True,
    ) -> None:
        self._candidate = candidate
        self._tokenizer = tokenizer
        self._parser = parser
        self._detokenizer = Detokenizer(tokenizer, strip_space=strip_space, shown=parser.marks)
        self._ends = tokenizer.end_ids - self._detokenizer.shown
        self._stops = StopScanner(stops)
        self._left = budget
        self._seed = seed
        self._parallel_calls = parallel_calls
        self._started = self._ended = self._reasoning_tokens = 0
        self.finished: str | None = None

    def may_end(self, tokens: Sequence[int]) -> bool:
        """Return whether ``tokens``, which were not fed yet, may end the answer; cheap."""
        by_text = self._stops.has_any or not self._parallel_calls
        return by_text or len(tokens) >= self._left or not self._ends.isdisjoint(tokens)

    def feed(
        self,
        tokens: Sequence[int],
        logprobs: Sequence[TokenLogprobs] = (),
        *,
        is_complete: bool = False,
    ) -> list[Event]:
        """Return the events of new tokens; tokens after the end are ignored.

        :param is_complete: nothing may follow them.
        """
        if self.finished:
            return []
        events: list[Event] = []
        used = shown = 0
        for token in tokens:
            if self.finished:
                break
            used += 1
            shown += token not in self._ends
            events += self._take(token)
        if is_complete and not self.finished:
            events += self._end("stop")
        details = tuple(map(self._describe, tokens[:shown], logprobs))
        events = _joined(events, TextDelta(self._candidate, "", tuple(tokens[:used]), details))
        if self.finished:
            events.append(
                Finished(self._candidate, self.finished, self._reasoning_tokens, self._stops.hit)
            )
        return events

    def _take(self, token: int) -> list[Event]:
        self._left -= 1
        if token in self._ends:
            return self._end("stop")
        was_thinking = self._parser.is_thinking
        events = self._events_of(self._parser.feed(self._detokenizer.feed(token)))
        self._reasoning_tokens += was_thinking or self._parser.is_thinking
        if self._left <= 0 and not self.finished:
            events += self._end("length")
        return events

    def _end(self, reason: str) -> list[Event]:
        """Return the events of held text, which may end the answer for another reason."""
        events = self._events_of(self._parser.feed(self._detokenizer.flush()))
        events += self._events_of(self._parser.flush())
        if not self.finished:
            events += self._visible(self._stops.flush())
            self.finished = "tool_calls" if self._ended and reason == "stop" else reason
        return events

    def _events_of(self, pieces: Iterable[Piece]) -> list[Event]:
        events: list[Event] = []
        for piece in pieces:
            if self.finished:
                break
            events += self._event(piece)
        return events

    def _event(self, piece: Piece) -> list[Event]:
        if isinstance(piece, Text):
            events = self._visible(self._stops.feed(piece.text))
            if self._stops.hit:
                self.finished = "tool_calls" if self._ended else "stop"
            return events
        if isinstance(piece, CallStarted):
            self._started += 1
            started = ToolCallStarted(
                self._candidate, self._started - 1, self._call_id(), piece.name
            )
            return [started]
        if isinstance(piece, CallArguments):
            return [ToolCallDelta(self._candidate, self._started - 1, piece.text)]
        if isinstance(piece, CallEnded):
            self._ended += 1
            if not self._parallel_calls:
                self.finished = "tool_calls"
            return []
        return [ReasoningDelta(self._candidate, piece.text)]

    def _visible(self, text: str) -> list[Event]:
        return [TextDelta(self._candidate, text, ())] if text else []

    def _call_id(self) -> str:
        source = f"{self._seed} {self._candidate} {self._started}"
        return "call_" + hashlib.sha256(source.encode()).hexdigest()[:CALL_ID_CHARS]

    def _describe(self, token: int, logprobs: TokenLogprobs) -> Logprobs:
        top = tuple(self._named(other, logprob) for other, logprob in logprobs.top)
        return Logprobs(self._named(token, logprobs.chosen), top)

    def _named(self, token: int, logprob: float) -> TokenLogprob:
        return TokenLogprob(token, self._tokenizer.token_bytes[token], logprob)


def _joined(events: Sequence[Event], tokens: TextDelta) -> list[Event]:
    """Join neighbours of one kind, and put the tokens of the step into the first text."""
    joined: list[Event] = []
    for event in events:
        both = _join(joined[-1], event) if joined else None
        if both is None:
            joined.append(event)
        else:
            joined[-1] = both
    for index, event in enumerate(joined):
        if isinstance(event, TextDelta):
            joined[index] = TextDelta(event.candidate, event.text, tokens.tokens, tokens.logprobs)
            return joined
    return [tokens, *joined]


def _join(first: Event, second: Event) -> Event | None:
    """Return two events as one; None if they are of different kinds, or of different calls."""
    match first, second:
        case TextDelta(), TextDelta():
            return TextDelta(first.candidate, first.text + second.text, ())
        case ReasoningDelta(), ReasoningDelta():
            return ReasoningDelta(first.candidate, first.text + second.text)
        case ToolCallDelta(), ToolCallDelta() if first.index == second.index:
            arguments = first.arguments + second.arguments
            return ToolCallDelta(first.candidate, first.index, arguments)
    return None
