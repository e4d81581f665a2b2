"""The worker that a dispatcher sends requests to."""

from __future__ import annotations

from typing import Protocol

from attrs import frozen

from lmx_kernel.runtime.answer import Candidate, LiveAnswer, Phase
from lmx_kernel.types import EngineLimits
from lmx_kernel.worker import messages as wire


class Send(Protocol):
    """Sends a message to the worker; see :meth:`WorkerProcess.send`."""

    def __call__(self, message: wire.Message, *, later: bool = False) -> None: ...


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
        """Have a request forgotten; at once if the worker is at work on it."""
        self.send(wire.Drop(answer.resume.wire_id), later=not answer.resume.unfinished)
