"""Prefixes of models whose states cannot be cut: recurrent layers hold one state, of all tokens so
far. So what is kept are copies of it: one shortly before the end of each prompt, which serves the
same prompt and those that go on from there, and one of all that a sequence has computed.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq

from attrs import define

from lmx_gguf_backend.context import Context
from lmx_gguf_backend.prefix import PrefixCache
from lmx_gguf_backend.rows import Piece
from lmx_gguf_backend.shared_prefixes import WORTH_WAITING, SlotSequence
from lmx_kernel.engine.running import RunningSet

TAIL = 32
"""Tokens of a prompt after the state that is kept: a prompt that is the same needs the last one
computed, and one that goes on may end in other tokens of a chat template."""

WORTH_SAVING = 128
"""Tokens that must be computed for a copy of the state to be made: fewer are computed soon."""


@define(eq=False)
class WholePrefixes:
    """Has the methods of :class:`~lmx_gguf_backend.shared_prefixes.SharedPrefixes` that the engine
    calls.

    :param state_bytes: of a sequence of one token.
    :ivar rows: computed so far; the clock by which unused prefixes age.
    """

    context: Context
    store: PrefixCache
    state_bytes: int
    rows: int = 0

    @classmethod
    def of(cls, context: Context, budget_bytes: int) -> WholePrefixes:
        """Return an empty store for a context that is empty, and is so afterwards."""
        context.compute([Piece(0, [0], 0, 1)])
        state_bytes = context.read_state(0).nbytes
        context.drop(0)
        return cls(context, PrefixCache(range(0), budget_bytes), state_bytes)

    def start(self, new: SlotSequence, running: RunningSet[SlotSequence]) -> None:
        """Let ``new`` begin with the longest state there is; ``cached`` is set to its length.

        It does not start yet if an older prompt will soon have one that is much longer.
        """
        found = self.store.whole(new.tokens, new.cache_space)
        length = len(found.tokens) if found is not None else 0
        if any(
            other.done < other.stop and length + WORTH_WAITING <= other.stop <= shared
            for other, shared in running.older_prompts(new)
        ):
            return
        if found is not None and found.state is not None:
            found.used = self.rows
            if not self.context.restore_whole(new.slot, found.state, length):
                self.store.forget(found)
                length = 0
        new.done = new.cached = length
        stop = len(new.tokens) - TAIL
        new.stop = stop if stop >= length + WORTH_SAVING else 0

    def computed(self, rows: int) -> None:
        """Let the clock go on: a step of ``rows`` was computed."""
        self.rows += rows

    def used(self, running: RunningSet[SlotSequence]) -> int:
        """Return how many tokens of running sequences are computed."""
        return sum(one.done for one in running)

    def keep(self, running: SlotSequence, _: RunningSet[SlotSequence]) -> None:
        """Keep a copy of what is computed of a sequence."""
        is_new = running.done > (running.cached or 0) and running.done >= WORTH_SAVING
        if not is_new or self.state_bytes > self.store.budget_bytes:
            return
        state = self.context.read_state(running.slot)
        self.put(running.tokens[: running.done], running.cache_space, state)

    def put(self, tokens: list[int], space: str, state: memoryview) -> bool:
        """Keep the state of ``tokens``; return whether there is room for it."""
        return self.store.put(tokens, space, self.rows, state)

    def held(self, tokens: Seq[int], space: str) -> int:
        """Return how many of ``tokens`` a prompt that is the same could begin with."""
        found = self.store.whole(tokens, space)
        return len(found.tokens) if found is not None else 0

    def tidy(self, running: RunningSet[SlotSequence]) -> None:
        """Do nothing: all are copies in memory already."""

    def park_oldest(self) -> bool:
        """Return that no cells can be freed."""
        return False

    def clear(self) -> None:
        """Forget all prefixes."""
        for kept in self.store:
            self.store.forget(kept)
