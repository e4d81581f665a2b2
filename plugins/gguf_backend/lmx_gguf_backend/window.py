"""Which tokens of a slot the layers with a sliding window still hold.

The library gives the cells that have left the window of a sequence's end to others when it needs
some, also where the whole cache was asked for (``swa_full``), and leaves them out of states. It
tells nobody: a sequence that goes on from an earlier token is computed without them, to another
text. But the size of a state tells how many cells it holds.
"""

from __future__ import annotations

import llama_cpp as llama
from attrs import frozen

from lmx_gguf_backend.context import Context
from lmx_gguf_backend.library import Model
from lmx_gguf_backend.rows import Piece


@frozen
class Window:
    """The sliding window of a model's layers.

    :param tokens: that a token attends to, itself included; 0 for all.
    :param fixed_bytes: of a state without tokens.
    :param token_bytes: what each token adds where all layers hold it.
    """

    tokens: int = 0
    fixed_bytes: int = 0
    token_bytes: int = 0

    @classmethod
    def measure(cls, model: Model, context: Context) -> Window:
        """Return the window of a model; ``context`` must be empty, and is empty afterwards."""
        tokens = int(llama.llama_model_n_swa(model.handle))
        if not tokens:
            return cls()
        sizes = []
        for position in range(2):
            context.compute([Piece(0, [0], position, 1)])
            sizes.append(context.state_bytes(0, 0, position + 1))
        context.drop(0)
        token_bytes = sizes[1] - sizes[0]
        return cls(tokens, sizes[0] - token_bytes, token_bytes)

    def holds(self, context: Context, slot: int, start: int, end: int) -> bool:
        """Return whether all layers hold the tokens from ``start`` to ``end``, of which there are
        fewer than the window has.
        """
        if not self.tokens:
            return True
        expected = self.fixed_bytes + (end - start) * self.token_bytes
        return context.state_bytes(slot, start, end) == expected

    def reaches(self, context: Context, slot: int, length: int) -> bool:
        """Return whether a slot holds what the token after its first ``length`` ones attends to."""
        return self.holds(context, slot, max(0, length - self.tokens + 1), length)
