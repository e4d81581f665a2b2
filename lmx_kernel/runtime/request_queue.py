"""The requests of one model: who waits, in which order, and who runs."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from lmx_kernel.runtime.answer import Candidate, LiveAnswer, Phase


class RequestQueue:
    """Holds the answers that have not ended; knows of no worker.

    :ivar answers: all of them by their wire ids, parked ones as well.
    :ivar waiting: the candidates that wait, the next one first.
    :ivar running: the candidates that the engine works on, in the order of their starts.
    """

    def __init__(self) -> None:
        self.answers: dict[int, LiveAnswer] = {}
        self.waiting: deque[Candidate] = deque()
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
        return self.waiting[0] if len(self.waiting) == 1 and not self.running else None

    def admissible(self, before: int | None) -> Iterable[Candidate]:
        """Return the candidates that may start, the next one first.

        :param before: only those of requests whose number is smaller; None is any.
        """
        return (
            candidate
            for candidate in self.waiting
            if candidate.answer.resume.phase is Phase.PREPARED
            and (before is None or candidate.answer.resume.number < before)
        )

    def has_waiting(self, before: int) -> bool:
        """Whether a request whose number is smaller than ``before`` waits."""
        return any(candidate.answer.resume.number < before for candidate in self.waiting)

    def add(self, answer: LiveAnswer) -> None:
        """Append a new request."""
        self.answers[answer.resume.wire_id] = answer
        self.waiting.extend(answer.resume.candidates)

    def remove(self, answer: LiveAnswer) -> None:
        """Take out a request, wherever it is."""
        del self.answers[answer.resume.wire_id]
        if answer.resume.unfinished:  # else none of its candidates is left in here
            self.running = [other for other in self.running if other.answer is not answer]
            self.waiting = deque(other for other in self.waiting if other.answer is not answer)

    def start(self, candidate: Candidate) -> None:
        """Move a candidate from the queue to those that run."""
        self.waiting.remove(candidate)
        self.running.append(candidate)

    def preempt(self, candidate: Candidate) -> None:
        """Move a candidate that ran to the head of the queue."""
        self.running.remove(candidate)
        self.waiting.appendleft(candidate)

    def lose_worker(self) -> None:
        """Move all that ran to the head of the queue, in its order, to be prepared anew."""
        self.waiting.extendleft(reversed(self.running))
        self.running = []
        for answer in self.answers.values():
            answer.resume.lose_worker()

    def put_back(self, answer: LiveAnswer, wire_id: int) -> None:
        """Take a request off the worker and put it to the head of the queue."""
        self.park(answer, wire_id)
        self.unpark(answer)

    def park(self, answer: LiveAnswer, wire_id: int) -> None:
        """Take a request off the worker until :meth:`unpark`; see :meth:`ResumeState.park`."""
        self.remove(answer)
        answer.resume.park(wire_id)
        self.answers[wire_id] = answer

    def unpark(self, answer: LiveAnswer) -> None:
        """Put a parked request to the head of the queue, to be prepared anew."""
        answer.resume.phase = Phase.UNCHECKED
        self.waiting.extendleft(reversed(answer.resume.unfinished))
