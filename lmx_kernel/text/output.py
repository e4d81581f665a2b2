"""One candidate's tokens to events: text, stop texts, the end, and everything again on resume."""

from __future__ import annotations

from collections.abc import Sequence

from lmx_kernel.engine import Tokenizer, TokenLogprobs
from lmx_kernel.text.detokenizer import Detokenizer
from lmx_kernel.text.formats import Parser, Piece, Text
from lmx_kernel.text.stops import StopScanner
from lmx_kernel.types import Event, Finished, Logprobs, TextDelta, TokenLogprob


class CandidateOutput:
    """Reads the tokens of one candidate.

    Its state is a pure function of the tokens it has seen, so feeding a new one the tokens that
    were answered before (and ignoring what comes out) makes it stand exactly where the old one did.

    :param budget: how many tokens the candidate may have.
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
    ) -> None:
        self._candidate = candidate
        self._tokenizer = tokenizer
        self._parser = parser
        self._detokenizer = Detokenizer(tokenizer, strip_space=strip_space)
        self._stops = StopScanner(stops)
        self._left = budget
        self.finished: str | None = None

    def feed(self, tokens: Sequence[int], logprobs: Sequence[TokenLogprobs] = ()) -> list[Event]:
        """Return the events of new tokens; tokens after the end are ignored."""
        if self.finished:
            return []
        text, used, shown = "", 0, 0
        for token in tokens:
            if self.finished:
                break
            used += 1
            ended = token in self._tokenizer.end_ids
            shown += not ended
            text += "" if ended else self._stops.feed(self._detokenizer.feed(token))
            self._end(ended)
        if self.finished and not self._stops.hit:
            text += self._stops.feed(self._detokenizer.flush()) + self._stops.flush()
        details = tuple(map(self._describe, tokens[:shown], logprobs))
        return self._events(text, tuple(tokens[:used]), details)

    def _end(self, ended: bool) -> None:
        self._left -= 1
        if ended or self._stops.hit:
            self.finished = "stop"
        elif self._left <= 0:
            self.finished = "length"

    def _events(
        self, text: str, tokens: tuple[int, ...], logprobs: tuple[Logprobs, ...]
    ) -> list[Event]:
        pieces: list[Piece] = [*self._parser.feed(text)]
        if self.finished:
            pieces += self._parser.flush()
        shown = "".join(piece.text for piece in pieces if isinstance(piece, Text))
        events: list[Event] = [TextDelta(self._candidate, shown, tokens, logprobs)]
        if self.finished:
            events.append(Finished(self._candidate, self.finished))
        return events

    def _describe(self, token: int, logprobs: TokenLogprobs) -> Logprobs:
        top = tuple(self._named(other, logprob) for other, logprob in logprobs.top)
        return Logprobs(self._named(token, logprobs.chosen), top)

    def _named(self, token: int, logprob: float) -> TokenLogprob:
        return TokenLogprob(token, self._tokenizer.pieces[token], logprob)
