"""The worker that a dispatcher sends requests to."""

from __future__ import annotations

from collections.abc import Callable

from attrs import frozen

from lmx_kernel.runtime.answer import Candidate, LiveAnswer, Phase
from lmx_kernel.types import EngineLimits
from lmx_kernel.worker import messages as wire

Send = Callable[[wire.Message], None]


@frozen
class AttachedWorker:
    """Sends what is to happen to requests."""

    send: Send
    limits: EngineLimits

    def prepare(self, answer: LiveAnswer) -> None:
        """Have a request checked and tokenised."""
        answer.resume.phase = Phase.PREPARING
        self.send(wire.Prepare(answer.resume.wire_id, answer.request))

    def start(self, candidate: Candidate) -> None:
        """Have the engine work on a candidate."""
        candidate.answer.start()
        wire_id, tokens = candidate.answer.resume.wire_id, tuple(candidate.tokens)
        self.send(wire.Start(wire_id, candidate.index, candidate.seed, tokens))

    def drop(self, answer: LiveAnswer) -> None:
        """Have a request forgotten."""
        self.send(wire.Drop(answer.resume.wire_id))
