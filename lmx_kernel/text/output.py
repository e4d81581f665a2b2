"""One candidate's tokens to events: text, thoughts, calls, the end, and all of it on resume."""

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

    Its state is a pure function of the tokens it has seen, so feeding a new one the tokens that
    were answered before (and ignoring what comes out) makes it stand exactly where the old one did.

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
        self._started = self._ended = self._thought = 0
        self.finished: str | None = None

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
            events.append(Finished(self._candidate, self.finished, self._thought))
        return events

    def _take(self, token: int) -> list[Event]:
        self._left -= 1
        if token in self._ends:
            return self._end("stop")
        was_thinking = self._parser.is_thinking
        events = self._say(self._parser.feed(self._detokenizer.feed(token)))
        self._thought += was_thinking or self._parser.is_thinking
        if self._left <= 0 and not self.finished:
            events += self._end("length")
        return events

    def _end(self, reason: str) -> list[Event]:
        """Say what was held back, which may end the answer in its own way."""
        events = self._say(self._parser.feed(self._detokenizer.flush()))
        events += self._say(self._parser.flush())
        if not self.finished:
            events += self._visible(self._stops.flush())
            self.finished = "tool_calls" if self._ended and reason == "stop" else reason
        return events

    def _say(self, pieces: Iterable[Piece]) -> list[Event]:
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
    if not events:
        return [tokens]
    joined: list[Event] = []
    for event in events:
        last = joined[-1] if joined else None
        if isinstance(event, TextDelta) and isinstance(last, TextDelta):
            joined[-1] = TextDelta(event.candidate, last.text + event.text, ())
        elif isinstance(event, ReasoningDelta) and isinstance(last, ReasoningDelta):
            joined[-1] = ReasoningDelta(event.candidate, last.text + event.text)
        elif (
            isinstance(event, ToolCallDelta)
            and isinstance(last, ToolCallDelta)
            and event.index == last.index
        ):
            joined[-1] = ToolCallDelta(
                event.candidate, event.index, last.arguments + event.arguments
            )
        else:
            joined.append(event)
    for index, event in enumerate(joined):
        if isinstance(event, TextDelta):
            joined[index] = TextDelta(event.candidate, event.text, tokens.tokens, tokens.logprobs)
            return joined
    return [tokens, *joined]
