"""The requests of one model: who waits, in which order, and who runs."""

from __future__ import annotations

from lmx_kernel.errors import QueueFullError
from lmx_kernel.runtime.answer import Candidate, LiveAnswer, Phase
from lmx_kernel.runtime.waiting import WaitingLines
from lmx_kernel.types import GenerationRequest


class RequestQueue:
    """Holds the answers that have not ended; knows of no worker.

    :ivar answers: all of them by their wire ids, parked ones as well.
    :ivar waiting: the candidates that wait.
    :ivar running: the candidates that the engine works on, in the order of their starts.
    """

    def __init__(self) -> None:
        self.answers: dict[int, LiveAnswer] = {}
        self.waiting = WaitingLines()
        self.running: list[Candidate] = []

    @property
    def waiting_requests(self) -> int:
        """How many requests have a candidate that waits."""
        return len({candidate.answer for candidate in self.waiting})

    @property
    def preparing(self) -> list[LiveAnswer]:
        """The requests that the worker prepares, or will."""
        return [one for one in self.answers.values() if one.resume.phase is Phase.PREPARING]

    @property
    def running_requests(self) -> list[LiveAnswer]:
        """The requests that have a candidate that runs."""
        return list({candidate.answer: None for candidate in self.running})

    @property
    def alone(self) -> Candidate | None:
        """The candidate that waits, if it is the only one and none runs."""
        return None if self.running else self.waiting.only

    def check_room(self, request: GenerationRequest, model: str, max_waiting: int) -> None:
        """Check that one more request may wait.

        :param max_waiting: of all callers, whose priority is not lower: a queue that is full of
            requests of lower priority refuses nobody above them.
        :raises QueueFullError: too many wait already.
        """
        rank, most = request.priority.rank, request.terms.max_waiting
        waits = {one.answer for one in self.waiting if one.answer.request.priority.rank >= rank}
        if (waiting := len(waits)) >= max_waiting:
            raise QueueFullError(f"{waiting} requests wait for {model} already", retry_after_s=5)
        if most is not None and len(self.waiting.of_caller(request.caller)) >= most:
            raise QueueFullError(
                f"{most} requests of {request.caller} wait for {model} already, and no more may",
                retry_after_s=5,
            )

    def has_waiting(self, before: int) -> bool:
        """Whether a request whose number is smaller than ``before`` waits."""
        return any(candidate.answer.resume.number < before for candidate in self.waiting)

    def add(self, answer: LiveAnswer) -> None:
        """Append a new request."""
        self.answers[answer.resume.wire_id] = answer
        self.waiting.append(answer.resume.candidates)

    def remove(self, answer: LiveAnswer) -> None:
        """Take out a request, wherever it is."""
        del self.answers[answer.resume.wire_id]
        if answer.resume.unfinished:  # else none of its candidates is left in here
            self.running = [other for other in self.running if other.answer is not answer]
            self.waiting.remove_all(answer)

    def start(self, candidate: Candidate) -> None:
        """Move a candidate from the queue to those that run."""
        self.waiting.remove(candidate)
        self.running.append(candidate)

    def preempt(self, candidate: Candidate) -> None:
        """Move a candidate that ran to the head of its line."""
        self.running.remove(candidate)
        self.waiting.put_first([candidate])

    def lose_worker(self) -> None:
        """Move all that ran to the heads of their lines, in their order, to be prepared anew."""
        self.waiting.put_first(self.running)
        self.running = []
        for answer in self.answers.values():
            answer.resume.lose_worker()

    def put_back(self, answer: LiveAnswer, wire_id: int) -> None:
        """Take a request off the worker and put it to the head of its line."""
        self.park(answer, wire_id)
        self.unpark(answer)

    def park(self, answer: LiveAnswer, wire_id: int) -> None:
        """Take a request off the worker until :meth:`unpark`; see :meth:`ResumeState.park`."""
        self.remove(answer)
        answer.resume.park(wire_id)
        self.answers[wire_id] = answer

    def unpark(self, answer: LiveAnswer) -> None:
        """Put a parked request to the head of its line, to be prepared anew."""
        answer.resume.phase = Phase.UNCHECKED
        self.waiting.put_first(answer.resume.unfinished)
