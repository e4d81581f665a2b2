"""Who may be in flight together after a crash, until it is known whose fault it was.

Pure decisions; a :class:`Suspects` sends nothing. What was in flight at a crash is divided into
groups, and one group after the other is in flight alone: first what ran before, without the newest
request and without what was being prepared, then each of those by itself. A group that gets past
the crash is cleared. A group that crashes again is divided into its requests, and all others are
cleared. So a request is only given up after a crash at which it was alone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from attrs import frozen

from lmx_kernel.runtime.answer import Candidate, LiveAnswer, Phase

PROOF_TOKENS = 3
"""Tokens by which each candidate that ran at the crash must get past it: the step that crashed and,
where the crash was a moment later than its cause, the ones after it."""


@frozen(kw_only=True)
class Verdict:
    """What follows from a crash.

    :param in_flight: how many requests it hit.
    :param doomed: the one that is given up, if any.
    :param explained: how many crashes, this one included, were that request's fault.
    :param has_worked: whether a request got anywhere since the crash before.
    """

    in_flight: int = 0
    doomed: LiveAnswer | None = None
    explained: int = 0
    has_worked: bool = False


class Suspects:
    """The groups that are still to be tried, for the requests of one dispatcher."""

    def __init__(self) -> None:
        self._groups: deque[list[LiveAnswer]] = deque()
        self._goals: dict[Candidate, int] = {}
        self._crashes = 0  # since the first one that is not explained
        self._were_killed = False  # at the last crash, rather than crashed
        self._has_worked = False

    def may_run(self, answer: LiveAnswer) -> bool:
        """Whether a request may be in flight now."""
        return not self._groups or answer in self._groups[0]

    @property
    def choice(self) -> Callable[[Candidate], bool] | None:
        """:meth:`may_start`; None where every candidate may."""
        return self.may_start if self._groups else None

    def may_start(self, candidate: Candidate) -> bool:
        """Whether a candidate may run now, beside others of whom that is true."""
        return not self._groups or (candidate in self._goals and self.may_run(candidate.answer))

    def crashed(
        self, running: Sequence[Candidate], preparing: Sequence[LiveAnswer], *, killed: bool
    ) -> Verdict:
        """Note that the worker is lost.

        :param running: what the engine worked on, in the order of the starts.
        :param preparing: what was being prepared, or waited for it in the worker.
        :param killed: the worker was ended for its memory or its silence, which may be nobody's
            fault: only a request that was alone in flight twice is given up.
        """
        ran = [*dict.fromkeys(candidate.answer for candidate in running)]
        in_flight = [*dict.fromkeys((*ran, *preparing))]
        has_worked, self._has_worked = self._has_worked, False
        if not in_flight:
            return Verdict(has_worked=has_worked)
        self._crashes += 1
        self._goals |= {one: len(one.tokens) + PROOF_TOKENS for one in running}
        explained = 0
        if len(in_flight) > 1:
            self._divide(ran, in_flight)
        elif self._is_guilty(in_flight[0], killed):
            explained = self._crashes
            self._reset()
        self._were_killed = killed
        return Verdict(
            in_flight=len(in_flight),
            doomed=in_flight[0] if explained else None,
            explained=explained,
            has_worked=has_worked,
        )

    def is_cleared(self, running: Sequence[Candidate]) -> bool:
        """Whether the group that is in flight got past the crash. Those of its candidates that may
        run and do not have no room beside the others: they are not waited for.
        """
        return bool(self._groups) and (
            all(answer.resume.phase is Phase.PREPARED for answer in self._groups[0])
            and all(len(one.tokens) >= self._goals.get(one, 0) for one in running)
        )

    def advance(self) -> None:
        """Go on to the next group."""
        self._has_worked |= bool(self._groups.popleft())
        if not self._groups:
            self._reset()

    def remove(self, answer: LiveAnswer, *, has_worked: bool) -> None:
        """Forget a request that ended or was parked.

        :param has_worked: the worker did for it what was asked.
        """
        self._has_worked |= has_worked
        for group in self._groups:
            if answer in group:
                group.remove(answer)

    def _divide(self, ran: Sequence[LiveAnswer], in_flight: Sequence[LiveAnswer]) -> None:
        trusted = [] if self._groups else [*ran[:-1]]
        apart = [[answer] for answer in reversed(in_flight) if answer not in trusted]
        self._groups = deque([trusted, *apart] if trusted else apart)

    def _is_guilty(self, answer: LiveAnswer, killed: bool) -> bool:
        """Whether this crash, at which a request was alone, was not its first."""
        was_hit = any(answer in group for group in self._groups) and not self._were_killed
        answer.resume.crashes += 1
        self._groups = deque([[answer], *([*self._groups][1:] if self._groups else ())])
        return answer.resume.crashes > 1 or (was_hit and not killed)

    def _reset(self) -> None:
        self._groups.clear()
        self._goals.clear()
        self._crashes = 0
