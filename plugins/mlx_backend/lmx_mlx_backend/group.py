"""Rows that are decoded together.

On a GPU a group is one token ahead: while the tokens of one step are read and answered, those of
the next are computed, and a row that leaves wastes one row of one step. On a CPU nothing would be
gained: MLX takes on no more than ten operations there before it waits (measured: starting a step of
8 rows takes 97 of its 105 ms), so the tokens would only come a step later. There the next step's
graph is built meanwhile, see :mod:`~lmx_mlx_backend.graph_builder`.

A batch is padded to its longest row; see :mod:`~lmx_mlx_backend.groups` for which rows share one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import mlx.core as mx
import numpy as np
from attrs import define, field, frozen

from lmx_kernel.engine import TokenLogprobs
from lmx_kernel.engine.logits import apply_processors
from lmx_kernel.engine.running import RunningSequence
from lmx_kernel.engine.sampling import has_penalties, uniform
from lmx_mlx_backend import caches
from lmx_mlx_backend.caches import Cache
from lmx_mlx_backend.graph_builder import Graph, GraphBuilder
from lmx_mlx_backend.sampler import (
    Allowed,
    Table,
    choose,
    count_tokens,
    logprobs,
)

MOST_SHIFTS = 16
"""Steps in which rows kept unequal numbers of drafts, before the batch is packed again."""

Detail = tuple[mx.array, mx.array, mx.array]
"""Log-probabilities of one row that are being computed: the token's, ids, theirs."""


@define(eq=False, kw_only=True)
class Row(RunningSequence):
    """A sequence in the engine.

    :param cache: while it is in prefill.
    :ivar produced: tokens of the answer that are chosen, given out or not.
    :ivar problem: why it cannot go on; "" if it can.
    """

    cache: Cache = field(factory=list)
    problem: str = field(default="", init=False)
    produced: int = field(init=False)

    @produced.default
    def _produced_before(self) -> int:
        return self.request.produced

    def draw(self) -> float:
        """Return the random number of the next token."""
        return uniform(self.sampling.seed or 0, self.produced)


@frozen(eq=False)
class Token:
    """A token that was computed."""

    id: int
    is_finite: bool
    detail: Detail | None

    def logprobs(self, count: int) -> TokenLogprobs:
        """Return its log-probability and those of the ``count`` likeliest tokens."""
        assert self.detail is not None
        chosen, ids, values = self.detail
        pairs = zip(ids.tolist(), values.tolist(), strict=True)
        return TokenLogprobs(float(chosen.tolist()), tuple(pairs)[:count])


@frozen(eq=False)
class Chosen:
    """Tokens that are being computed.

    :param is_finite: whether the numbers they were chosen from are.
    :param details: for each row, if it asked for log-probabilities.
    :param is_new: for each row; a token that was given out already is not.
    """

    tokens: mx.array
    is_finite: mx.array
    details: list[Detail | None]
    is_new: list[bool]

    def start(self) -> None:
        """Have it computed in the background."""
        mx.async_eval(self.tokens, self.is_finite, [d for d in self.details if d is not None])

    def read(self) -> list[Token | None]:
        """Wait, and return the new tokens; None for those that were given out already.

        Only whole arrays are read: any operation on them would wait behind the step in flight.
        """
        mx.eval(self.tokens, self.is_finite, [d for d in self.details if d is not None])
        items = zip(self.tokens.tolist(), self.is_finite.tolist(), self.details, strict=True)
        return [
            Token(*item) if is_new else None
            for item, is_new in zip(items, self.is_new, strict=True)
        ]

    def given_out(self) -> Chosen:
        """Return the same tokens, none of them new."""
        count = len(self.is_new)
        return Chosen(self.tokens, self.is_finite, [None] * count, [False] * count)

    def select(self, rows: list[int]) -> Chosen:
        """Return only these rows."""
        return Chosen(
            self.tokens[mx.array(rows)],
            self.is_finite[mx.array(rows)],
            [self.details[row] for row in rows],
            [self.is_new[row] for row in rows],
        )

    def joined(self, other: Chosen) -> Chosen:
        """Return the rows of both."""
        return Chosen(
            mx.concatenate([self.tokens, other.tokens]),
            mx.concatenate([self.is_finite, other.is_finite]),
            self.details + other.details,
            self.is_new + other.is_new,
        )


def choose_next(
    rows: Sequence[Row],
    table: Table,
    logits: mx.array,
    counts: mx.array | None,
    before: Sequence[Token | None] = (),
) -> Chosen:
    """Choose a token for each row from ``logits`` of shape (rows, vocabulary); nothing is computed.

    :param before: the tokens that were read and not given out yet, if any were.
    """
    logits = logits.astype(mx.float32)
    masks = [row.mask for row in rows]
    allowed = Allowed.of(masks, logits.shape[-1]) if any(masks) else None
    processed = _processed(rows, logits, before) if any(row.processors for row in rows) else logits
    tokens = choose(processed, table, [row.draw() for row in rows], counts, allowed)
    for row in rows:
        row.produced += 1
    return Chosen(
        tokens,
        mx.isfinite(logits.max(axis=-1)),
        _details(rows, logits, tokens),
        [True] * len(rows),
    )


def _processed(rows: Sequence[Row], logits: mx.array, before: Sequence[Token | None]) -> mx.array:
    """Return ``logits`` as the processors of their rows change them."""
    places = [place for place, row in enumerate(rows) if row.processors]
    values = np.array(logits[mx.array(places)])
    for place, mine in zip(places, values, strict=True):
        row, last = rows[place], before[place] if before else None
        tokens = row.tokens if last is None else [*row.tokens, last.id]
        row.problem = apply_processors(row.processors, mine, tokens)
    changed = mx.array(logits)
    changed[mx.array(places)] = mx.array(values)
    return changed


def read_tokens(rows: Sequence[Row], chosen: Chosen) -> list[Token | None]:
    """Return the new tokens of ``rows``; their masks accept them."""
    tokens = chosen.read()
    for row, token in zip(rows, tokens, strict=True):
        if row.mask is not None and token is not None:
            row.mask.accept((token.id,))
    return tokens


def _details(rows: Sequence[Row], logits: mx.array, tokens: mx.array) -> list[Detail | None]:
    """Return log-probabilities of those rows only that asked."""
    details: list[Detail | None] = [None] * len(rows)
    asking = [i for i, row in enumerate(rows) if row.alternatives is not None]
    if asking:
        count = max(rows[i].alternatives or 0 for i in asking)
        places = mx.array(asking)
        chosen, ids, values = logprobs(logits[places], tokens[places], count)
        for place, i in enumerate(asking):
            details[i] = chosen[place], ids[place], values[place]
    return details


@define(eq=False)
class Group:
    """Rows in one batch.

    :param cache: of the one row, or a batch of all.
    :param chosen: the next token of each row.
    :param counts: what penalties count, of shape (rows, vocabulary); None if no row has any.
    :ivar forced: tokens after the chosen one that were given out already. There are none in a batch
        of several rows: the others would have to be padded.
    """

    rows: list[Row]
    cache: Cache
    chosen: Chosen
    vocabulary: int
    counts: mx.array | None = None
    forced: list[int] = field(factory=list, init=False)
    table: Table = field(init=False)
    _next: Graph | None = field(default=None, init=False)
    _shifts: int = field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        self.table = Table.of([row.sampling for row in self.rows])

    @property
    def _needs_tokens(self) -> bool:
        """Whether the tokens of one step must be read before the next ones are chosen."""
        return any(row.mask is not None or row.processors for row in self.rows)

    @property
    def is_ahead(self) -> bool:
        """Whether tokens were chosen that are not given out yet."""
        return any(self.chosen.is_new)

    def advance(
        self, model: Callable[..., mx.array], *, ahead: bool, builder: GraphBuilder | None = None
    ) -> list[list[Token]]:
        """Compute a step, and return the tokens of each row that can be read now.

        A row that is alone with its mask does not run ahead, so that it can go on with all the
        tokens that the mask forces at once.

        :param ahead: return those of the step before, while this one goes on.
        :param builder: builds the graph of the next step meanwhile, if not ``ahead``.
        """
        tokens = self._advance(model, ahead, builder)
        return [[token] if token is not None else [] for token in tokens]

    def _advance(
        self, model: Callable[..., mx.array], ahead: bool, builder: GraphBuilder | None
    ) -> list[Token | None]:
        before = self.chosen
        ahead = ahead and not (self._needs_tokens and len(self.rows) == 1)
        if any(before.is_new) and not ahead:
            self.chosen = before.given_out()
            return read_tokens(self.rows, before)
        logits = self._compute(model)
        tokens = None
        if ahead and self._needs_tokens:
            mx.async_eval(logits)  # goes on while the masks are made
            tokens = read_tokens(self.rows, before)
        self.chosen = choose_next(self.rows, self.table, logits, self.counts, tokens or ())
        if ahead:
            self.chosen.start()
            return read_tokens(self.rows, before) if tokens is None else tokens
        now, self.chosen = self.chosen, self.chosen.given_out()
        building = builder.begin(model, now.tokens, self.cache) if builder is not None else None
        found = read_tokens(self.rows, now)
        self._next = building.result() if building is not None else None
        return found

    def _compute(self, model: Callable[..., mx.array]) -> mx.array:
        """Start computing what comes after the chosen tokens, and return its logits."""
        tokens = self.chosen.tokens[:, None]
        if self.forced:
            tokens = mx.concatenate([tokens, mx.array([self.forced], tokens.dtype)], axis=1)
        if self.counts is not None:
            self.counts = self.counts.at[mx.arange(len(self.rows))[:, None], tokens].add(1)
        graph, self._next = self._next, None
        if graph is not None and not self.forced and graph.is_of(model, self.chosen.tokens):
            self.cache, logits = graph.cache, graph.logits
        else:
            logits = model(tokens, cache=self.cache)[:, -1]
        for row in self.rows:
            row.done += tokens.shape[1]
        self.forced = []
        return logits

    def check_drafts(self, model: Callable[..., mx.array]) -> list[list[Token]]:
        """Compute a step with the drafts of all rows, and return what each row draws: the drafts
        that are right, and one more. What was computed for the others is taken back.

        Every token was given out, and none is forced. A place after a wrong draft is not drawn, so
        masks and penalties see what they would see without drafts.
        """
        self._next = None
        width = max(len(row.drafts) for row in self.rows)
        pieces = [[row.tokens[-1], *row.drafts] for row in self.rows]
        tokens = mx.array([piece + [0] * (width + 1 - len(piece)) for piece in pieces])
        logits = model(tokens, cache=self.cache)
        mx.async_eval(logits)
        drawn: list[list[Token]] = [[] for _ in self.rows]
        left = list(range(len(self.rows)))
        while left:
            place = len(drawn[left[0]])
            self._count(left, tokens[mx.array(left), place])
            for row, token in zip(left, self._draw(left, logits[:, place]), strict=True):
                drawn[row].append(token)
            left = [
                row
                for row in left
                if drawn[row][-1].is_finite
                and self.rows[row].may_go_on([token.id for token in drawn[row]])
            ]
        self._keep([len(found) for found in drawn], width + 1)
        last = [found[-1] for found in drawn]
        ids, is_finite = (
            mx.array([one.id for one in last]),
            mx.array([one.is_finite for one in last]),
        )
        self.chosen = Chosen(ids, is_finite, [None] * len(last), [False] * len(last))
        return drawn

    def _draw(self, places: list[int], logits: mx.array) -> list[Token]:
        """Return the next tokens of some rows, from the logits of all."""
        rows, table, counts = self.rows, self.table, self.counts
        if len(places) < len(rows):
            picked = mx.array(places)
            rows, logits = [rows[place] for place in places], logits[picked]
            table = Table.of([row.sampling for row in rows])
            counts = counts[picked] if counts is not None else None
        tokens = read_tokens(rows, choose_next(rows, table, logits, counts))
        return [token for token in tokens if token is not None]

    def _count(self, places: list[int], tokens: mx.array) -> None:
        """Let penalties count a token more of some rows."""
        if self.counts is not None:
            self.counts = self.counts.at[mx.array(places), tokens].add(1)

    def _keep(self, kept: list[int], computed: int) -> None:
        """Keep so many of the tokens that were computed of each row."""
        caches.cut(self.cache, [computed - count for count in kept])
        for row, count in zip(self.rows, kept, strict=True):
            row.done += count
        self._shifts += len(set(kept)) > 1
        if self._shifts >= MOST_SHIFTS:  # padding that all rows have by now is taken off
            self._shifts = 0
            caches.select(self.cache, list(range(len(self.rows))))

    def absorb(self, other: Group) -> None:
        """Take in the rows of another group."""
        if self.counts is not None or other.counts is not None:
            self.counts = mx.concatenate([self._all_counts(), other._all_counts()])
        self._next = other._next = None
        batch = self._batch()
        caches.extend(batch, other._batch())
        self.cache = batch
        self.rows = self.rows + other.rows
        self.chosen = self.chosen.joined(other.chosen)
        self.table = Table.of([row.sampling for row in self.rows])

    def cache_of(self, row: Row) -> Cache:
        """Return the cache of one row, which stays in the group."""
        if len(self.rows) == 1:
            return self.cache
        cache = caches.extract(self.cache, self.rows.index(row))
        caches.settle(cache)
        return cache

    def drop(self, row: Row) -> Cache:
        """Take a row out and return its cache; it must not be the last."""
        cache = self.cache_of(row)
        left = [i for i, other in enumerate(self.rows) if other is not row]
        self.rows = [self.rows[i] for i in left]
        self._select(left)
        return cache

    def _select(self, left: list[int]) -> None:
        self._next = None
        if len(left) > 1:
            caches.select(self.cache, left)
        else:
            self.cache = caches.extract(self.cache, left[0])
        self.chosen = self.chosen.select(left)
        if self.counts is not None:
            is_needed = any(has_penalties(row.sampling) for row in self.rows)
            self.counts = self.counts[mx.array(left)] if is_needed else None
        self.table = Table.of([row.sampling for row in self.rows])

    def _all_counts(self) -> mx.array:
        if self.counts is not None:
            return self.counts
        return mx.zeros((len(self.rows), self.vocabulary), mx.float32)

    def _batch(self) -> Cache:
        return caches.merge([self.cache]) if len(self.rows) == 1 else self.cache


def row_counts(rows: Sequence[Row], vocabulary: int) -> mx.array | None:
    """Return what penalties count so far, of shape (rows, vocabulary); None if no row has any."""
    if not any(has_penalties(row.sampling) for row in rows):
        return None
    return mx.concatenate([count_tokens(row.tokens, row.produced, vocabulary) for row in rows])
