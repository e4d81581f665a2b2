"""The memory that a transformer takes when it is loaded, from its shape alone.

A backend maps the header of a model to a :class:`TransformerShape`. What depends on how an engine
computes is passed in: the size of a number, the rows of a computation, the size of a process.
Estimates should be rather too high than too low: too low an estimate lets a load fail.
"""

from __future__ import annotations

from attrs import frozen

ROWS = 512
"""Prompt tokens of one computation, at most: activations grow with them."""

CELLS_STEP = 256
"""Caches grow by this many tokens."""

PREFIX_SHARE = 4
"""Cached prefixes may take one part in this many of what the cache takes."""

STATE_NUMBER_BYTES = 4
"""Recurrent layers keep their states in float32."""


QUEUE_BYTES = 32 << 20
"""States that wait to be written to disk; while there are as many no further ones are taken."""

BATCH_BYTES = 16 << 20
"""Of states that are read from disk before the engine takes them over."""


@frozen(kw_only=True)
class TransformerShape:
    """What the header of a model says of its size. A field that it does not name is 0.

    :param weights_bytes: in memory.
    :param width: of the hidden state.
    :param hidden: width of the feed-forward layers.
    :param heads: of attention, in one layer.
    :param cell_numbers: numbers that the caches of all layers hold for one token.
    :param state_numbers: numbers that recurrent layers hold for one sequence.
    :param vocabulary: number of tokens.
    """

    weights_bytes: int
    width: int
    hidden: int
    heads: int
    cell_numbers: int
    state_numbers: int
    vocabulary: int

    def cells_bytes(self, cells: int, number_bytes: float) -> int:
        """Return what the cache of ``cells`` tokens takes."""
        return int(cells * self.cell_numbers * number_bytes)

    def states_bytes(self, sequences: int) -> int:
        """Return what the states of recurrent layers take."""
        return sequences * self.state_numbers * STATE_NUMBER_BYTES

    def activations_bytes(
        self, widths: int, hiddens: int, number_bytes: int, rows: int = ROWS
    ) -> int:
        """Return what the intermediate results of one computation take.

        :param widths: arrays of the hidden state's width that exist at the same time.
        :param hiddens: and of the feed-forward layers' width.
        """
        return rows * (widths * self.width + hiddens * self.hidden) * number_bytes

    def logits_bytes(self, rows: int) -> int:
        """Return what float32 logits of ``rows`` tokens take."""
        return rows * self.vocabulary * 4

    def process_bytes(self, base_bytes: int, token_bytes: int) -> int:
        """Return what a worker takes beside weights, caches and computations.

        :param base_bytes: the interpreter and its libraries.
        :param token_bytes: tables and tokenizers, for one token of the vocabulary.
        """
        return base_bytes + token_bytes * self.vocabulary


def whole_cells(tokens: int) -> int:
    """Return the cells of a cache for ``tokens`` tokens."""
    return -(-tokens // CELLS_STEP) * CELLS_STEP
