"""A context in which a row's numbers do not depend on what is computed beside it.

The library computes a row by other kernels where it is alone, or one of many, and the sums of
attention follow the order of the cache's cells. Both show in the last bits, and now and then in a
token. What holds all rows to one kernel, each found in the library's source and by experiment
(bitwise equal logits, models of F32, F16, Q8_0, Q4_0, Q4_1, Q5_0, Q4_K, Q6_K, Q2_K, IQ4_NL and
IQ4_XS weights):

- Every slot has cells of its own, in the order of its tokens (``kv_unified`` off).
- Keys and values are of different types, or quantised: attention has a path of its own for a lone
  row with 512 cells and more, and one for 64 rows and more, both only where the two types are f16.
- Products with K-quants are not computed in tiles (from 8 rows on), see :func:`use_one_kernel`, nor
  with weights that were rearranged for groups of 4 rows, see :class:`Model`.
- Weights that are not quantised are multiplied by other kernels for a lone row than for several. So
  a lone row gets a second one beside it, which is forgotten at once, and a lone row of logits too.

:func:`find_least_rows` tries out whether all this is enough for a model.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import llama_cpp as llama
import numpy as np
from attrs import define, evolve, field
from numpy.typing import NDArray

from lmx_gguf_backend.context import Context, Outcome, context_params
from lmx_gguf_backend.rows import Piece, check
from lmx_gguf_backend.settings import GgufSettings
from lmx_kernel.engine.footprint import whole_cells
from lmx_kernel.engine.numpy_sampler import Logits
from lmx_kernel.types import LoadOptions

BF16 = 30
"""GGML_TYPE_BF16, which the bindings do not name. As large as f16."""

CUTS = ((66,), (1, 65), (1, 1, 2, 3, 8, 51), (1, 2, 62, 1))
"""Pieces in which the same tokens are computed, to see whether the numbers are the same."""


def use_one_kernel() -> None:
    """Turn off what computes products with K-quants in tiles; before the first computation."""
    os.environ["GGML_CPU_TILED_MM"] = "0"


@define
class StreamContext(Context):
    """A context whose slots have cells of their own, enough for a whole sequence each.

    There are no holders: what another slot holds is copied, and prefixes are kept as states.

    :ivar least_rows: 2 where a lone row is computed otherwise than several.
    """

    least_rows: int = 1
    _logits: list[NDArray[np.float32]] = field(factory=list)

    @classmethod
    def params(cls, options: LoadOptions, settings: GgufSettings, threads: int) -> Any:
        """Return the parameters; the type of the values takes attention off its special paths."""
        params = context_params(options, settings, threads)
        params.kv_unified = False
        params.n_seq_max = options.parallel
        params.n_ctx = options.parallel * whole_cells(options.context_length + 1)  # a second row
        params.flash_attn_type = 1
        if settings.cache_type == "f16":
            params.type_v = BF16
        return params

    @property
    def holders(self) -> range:
        """None: the library copies no part of a slot's cells."""
        return range(0)

    def copy(self, source: int, target: int, length: int) -> None:
        """Let the empty slot ``target`` hold the first ``length`` tokens of ``source`` too."""
        state = self.save(source, length, 1 << 62)
        check(state is not None and self.restore(target, state, length))

    def save(self, slot: int, length: int, limit_bytes: int) -> memoryview | None:
        """Return a copy of what a slot holds, ``length`` tokens and perhaps more; None if it is
        larger than the limit.
        """
        check(0 <= slot < self.parallel and length > 0)
        size = int(llama.llama_state_seq_get_size(self.handle, slot))
        return self.read_state(slot) if size <= limit_bytes else None

    def compute(self, pieces: Sequence[Piece]) -> int:
        """As :meth:`Context.compute`, in several computations: one for all lone rows, and one for
        each longer piece. Those before one that fails stay computed.
        """
        lone = sorted((one for one in pieces if len(one.tokens) == 1), key=lambda one: one.slot)
        groups = [lone, *([one] for one in pieces if len(one.tokens) > 1)]
        found: dict[int, NDArray[np.float32]] = {}
        for group in filter(None, groups):
            outcome = self._compute_group(group, found)
            if outcome != Outcome.DONE:
                return outcome
        self._logits = [found[one.slot] for one in pieces if one.outputs]
        return Outcome.DONE

    def _compute_group(self, group: list[Piece], found: dict[int, NDArray[np.float32]]) -> int:
        """Compute pieces at once; ``found`` gets the logits of each slot."""
        slots = {one.slot for one in group}
        rows: list[Piece] = []
        second: list[Piece] = []
        places: dict[int, int] = {}
        for one in group:
            rows.append(self._with_outputs(one))
            places[one.slot] = sum(row.outputs for row in rows) - one.outputs
            is_lone = len(one.tokens) < self.least_rows
            if is_lone and not slots & {one.slot - 1, one.slot + 1}:
                second.append(Piece(one.slot, [0], one.position + 1, 1))
                rows.append(second[-1])
        outcome = super().compute(rows)
        if outcome != Outcome.DONE:
            return outcome
        check(all(self.drop(row.slot, row.position) for row in second))
        if count := sum(row.outputs for row in rows):
            logits = super().logits(count)
            for one in group:
                start = places[one.slot]
                found[one.slot] = logits[start : start + one.outputs].copy()
        return outcome

    def _with_outputs(self, piece: Piece) -> Piece:
        """Return a piece with the logits of as many rows as have to be computed at once: behind the
        last attention, the other rows are left out.
        """
        least = min(self.least_rows, len(piece.tokens)) if self.least_rows > 1 else 0
        return evolve(piece, outputs=max(piece.outputs, least))

    def logits(self, count: int) -> NDArray[np.float32]:
        """Return the logits that the last computation was asked for, in its order."""
        check(count == sum(map(len, self._logits)))
        return np.concatenate(self._logits)


def find_least_rows(context: StreamContext, *, can_cut: bool) -> bool:
    """Set ``least_rows`` to what makes all rows the same; return whether anything does.

    It takes as long as a prompt of a few hundred tokens.

    :param can_cut: whether a row can be forgotten.
    """
    for least in (1, 2) if can_cut else (1,):
        context.least_rows = least
        if _is_uniform(context):
            return True
    return False


def _is_uniform(context: StreamContext) -> bool:
    """Return whether tokens have the same logits, bit for bit, in whatever pieces, in whatever
    slot, and beside others.
    """
    last = context.parallel - 1
    first = _last_logits(context, CUTS[0], 0)
    return all(
        np.array_equal(first, _last_logits(context, cuts, slot))
        for cuts, slot in zip(CUTS[1:], (0, last, last), strict=True)
    )


def _last_logits(context: StreamContext, cuts: tuple[int, ...], slot: int) -> Logits:
    """Compute tokens in pieces, beside a row of another slot each if there is one."""
    tokens = [place * 7919 % context.vocabulary for place in range(sum(cuts))]
    other, done = (slot - 1 if slot else 1), 0
    for number, count in enumerate(cuts):
        pieces = [Piece(slot, tokens[done : done + count], done, 1)]
        if other < context.parallel:
            pieces.append(Piece(other, [number], number, 1))
        check(context.compute(pieces) == Outcome.DONE)
        done += count
    logits: Logits = context.logits(len(pieces))[0]
    context.drop(slot)
    if other < context.parallel:
        context.drop(other)
    return logits
