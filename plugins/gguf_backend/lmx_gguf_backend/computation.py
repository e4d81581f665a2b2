"""Computing steps, and learning from the time that they take."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

from attrs import define

from lmx_gguf_backend.context import Context, Outcome, Piece
from lmx_gguf_backend.interruption import Interruption
from lmx_gguf_backend.prefill_budget import PrefillBudget
from lmx_gguf_backend.threads import Threads
from lmx_kernel.engine.step_costs import StepCosts


@define(eq=False)
class Computation:
    """Computes the steps of an engine.

    :param costs: what steps without prefill take.
    :param interruption: of prompts that are computed alone; None where the state of a sequence
        cannot go back to what it was before.
    """

    _context: Context
    budget: PrefillBudget
    costs: StepCosts
    _threads: Threads
    interruption: Interruption | None

    def prompt_rows(self, decoding: int, prompts: int) -> int:
        """Return how many rows of prompts the next step may carry.

        :param decoding: rows of running streams.
        :param prompts: how many there are to compute.
        """
        is_alone = not decoding and prompts == 1
        if is_alone and self.interruption is not None and self.interruption.allows_long:
            return self.budget.rows_alone()
        return self.budget.rows(decoding)

    def run(self, pieces: Sequence[Piece], decoding: int) -> int:
        """Compute ``pieces``; return the library's code, see :class:`Outcome`.

        :param decoding: how many of the rows are those of running streams.
        """
        prefill = sum(len(piece.tokens) for piece in pieces) - decoding
        wall_s, cpu_s = time.perf_counter(), time.process_time()
        threads = self._threads.most if prefill else self._threads.count(wall_s)
        self._context.use_threads(threads)
        with self._interruptible(decoding, prefill):
            outcome = self._context.compute(pieces)
        took_s = time.perf_counter() - wall_s
        if outcome == Outcome.STOPPED:
            self.budget.interrupted()
        elif outcome == Outcome.DONE:
            self.budget.observe(decoding, prefill, took_s)
            if not prefill:
                self.costs.observe(decoding, took_s)
                self._threads.observe(threads, took_s, time.process_time() - cpu_s, wall_s + took_s)
        return outcome

    def _interruptible(self, decoding: int, prefill: int) -> AbstractContextManager[None]:
        if decoding or self.interruption is None:
            return nullcontext()
        return self.interruption.during(self.budget.expected_s(prefill))
