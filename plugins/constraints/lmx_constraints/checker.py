"""Trying grammars in child processes, which may be killed, before they are compiled beside a model.

A grammar comes from a client, and some take minutes or gigabytes before they turn out to be wrong.
So a child tries each one first (:mod:`lmx_constraints.trial`), and only a grammar that passes is
compiled in the worker. There are as many children as requests are prepared at once, so that the
grammars of one request never delay those of another.
"""

from __future__ import annotations

import json
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from attrs import define, field

from lmx_constraints.trial_child import TOO_SLOW, BusyError, TrialChild

CHILDREN = 2
"""As many as requests with constraints are prepared at once (``lmx_kernel.worker.preparer``)."""

BUDGET_S = 3.0
"""Processor time for trying all grammars of one request."""

MAX_VERDICTS = 256
VERDICT_S = 600.0
"""Verdicts that are remembered, and for how long: a slow grammar is tried again some day."""

SPENT = "the schemas of this request take too much time to compile together"


@define
class Budget:
    """What trying the grammars of one request may still cost.

    :ivar left_s: processor time, in seconds.
    """

    left_s: float = BUDGET_S


class ChildMemoryError(OSError):
    """The child uses more memory than it may."""


class GrammarChecker:
    """Finds out which grammars are safe to compile. Its calls may come from any thread.

    :param size: of the vocabulary.
    :param controls: the texts of control tokens by their ids.
    """

    def __init__(self, size: int, controls: Mapping[int, str]) -> None:
        hello = json.dumps({"size": size, "controls": controls})
        self._children = [TrialChild(hello) for _ in range(CHILDREN)]
        self._places = threading.Semaphore(CHILDREN)
        self._idle = list(self._children)
        self._verdicts = _Verdicts()

    def problem_with(self, grammar: str, budget: Budget | None = None) -> str:
        """Return why a grammar cannot be followed, or costs too much; "" if it is safe to compile.

        :param budget: what the trial is paid from; once it is spent, a grammar without a remembered
            verdict counts as too slow. None for a budget of its own.
        :raises UnavailableError: no child process can be started now.
        """
        verdict = self._verdicts.get(grammar)
        if verdict is not None:
            return verdict
        if budget is not None and budget.left_s <= 0:
            return SPENT
        with self._child() as child:
            try:
                verdict = child.verdict_on(grammar)
            except BusyError:  # not remembered: the grammar is not to blame
                return TOO_SLOW
            finally:
                if budget is not None:
                    budget.left_s -= child.used_s
        self._verdicts.put(grammar, verdict)
        return verdict

    def close(self) -> None:
        """End all children."""
        for child in self._children:
            child.close()

    @contextmanager
    def _child(self) -> Iterator[TrialChild]:
        """Lend an idle child, the one that was used last: the others need not be started."""
        with self._places:
            child = self._idle.pop()
            try:
                yield child
            finally:
                self._idle.append(child)


@define
class _Verdicts:
    """The last verdicts by grammar, each for a limited time."""

    _known: OrderedDict[str, tuple[str, float]] = field(factory=OrderedDict, init=False)
    _lock: threading.Lock = field(factory=threading.Lock, init=False)

    def get(self, grammar: str) -> str | None:
        with self._lock:
            verdict, until_s = self._known.get(grammar, ("", 0.0))
            if until_s < time.monotonic():
                return None
            self._known.move_to_end(grammar)
            return verdict

    def put(self, grammar: str, verdict: str) -> None:
        with self._lock:
            self._known[grammar] = (verdict, time.monotonic() + VERDICT_S)
            self._known.move_to_end(grammar)
            while len(self._known) > MAX_VERDICTS:
                self._known.popitem(last=False)
