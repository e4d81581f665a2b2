"""The states of sequences as bytes, by which they outlive this process."""

from __future__ import annotations

from collections.abc import Sequence as Seq

import llama_cpp as llama
from attrs import define, field

from lmx_gguf_backend.context import Context
from lmx_gguf_backend.library import has_gpu
from lmx_gguf_backend.prefill_budget import PrefillBudget
from lmx_gguf_backend.settings import GgufSettings
from lmx_gguf_backend.shared_prefixes import SharedPrefixes, SlotSequence
from lmx_gguf_backend.whole_prefixes import WholePrefixes
from lmx_kernel.engine import STATE_TOKENS
from lmx_kernel.engine.running import RunningSet

FORMAT = 1
"""Counts changes of what a block's bytes are."""


@define(eq=False)
class GgufStates:
    """Implements :class:`lmx_kernel.engine.PortableStates` with the library's own states."""

    identity: str
    _context: Context
    _prefixes: SharedPrefixes
    _budget: PrefillBudget
    _running: RunningSet[SlotSequence] = field(repr=False)

    @property
    def prompt_token_s(self) -> float:
        """What a token of a prompt takes to compute, in seconds."""
        return self._budget.tile_row_s

    def computed(self, sequence_id: int) -> int:
        """Return how many tokens of a running sequence are computed; 0 for an unknown one."""
        running = self._find(sequence_id)
        return running.done if running is not None else 0

    def export_block(self, sequence_id: int, start: int) -> memoryview | None:
        """Return a copy of the state of a block of a running sequence; None if it is not there."""
        running, end = self._find(sequence_id), start + STATE_TOKENS
        if running is None or running.done < end:
            return None
        if not self._prefixes.window.holds(self._context, running.slot, start, end):
            return None
        return self._context.export(running.slot, start, end)

    def held(self, tokens: Seq[int], cache_space: str) -> int:
        """Return how many of ``tokens`` are in memory, or are being computed."""
        return self._prefixes.held(tokens, cache_space, self._running)

    def import_blocks(
        self, tokens: Seq[int], cache_space: str, start: int, states: Seq[bytearray]
    ) -> bool:
        """Hold ``tokens`` as a prefix; ``states`` are of those from ``start`` on."""
        return self._prefixes.put(list(tokens), cache_space, start, states, self._running)

    def _find(self, sequence_id: int) -> SlotSequence | None:
        return next((running for running in self._running if running.id == sequence_id), None)


@define(eq=False)
class GgufWholeStates:
    """Implements :class:`lmx_kernel.engine.WholeStates` with the states that are kept in memory."""

    identity: str
    _prefixes: WholePrefixes
    _budget: PrefillBudget

    @property
    def prompt_token_s(self) -> float:
        """What a token of a prompt takes to compute, in seconds."""
        return self._budget.tile_row_s

    def held(self, tokens: Seq[int], cache_space: str) -> int:
        """Return how many of ``tokens`` a prompt that is the same could begin with."""
        return self._prefixes.held(tokens, cache_space)

    def export_whole(self, tokens: Seq[int], cache_space: str) -> memoryview | None:
        """Return the state of exactly ``tokens``; None if it is not kept."""
        found = self._prefixes.store.whole([*tokens, 0], cache_space)
        return found.state if found is not None and len(found.tokens) == len(tokens) else None

    def import_whole(self, tokens: Seq[int], cache_space: str, state: bytearray) -> bool:
        """Keep the state of exactly ``tokens``, if it is as large as one is at least."""
        is_small = len(state) < self._prefixes.state_bytes
        return not is_small and self._prefixes.put(list(tokens), cache_space, memoryview(state))


def identity_of(settings: GgufSettings, cells: int) -> str:
    """Return what the numbers of a state depend on beside the model's file.

    Some models (LongRoPE) rotate by other factors in a longer context. Threads and rows change the
    last bits of what is computed, and no more than they do in memory.

    :param cells: of the context.
    """
    device = f"gpu {settings.gpu_layers}" if has_gpu() else "cpu"
    flash = "flash attention" if settings.flash_attention else "plain attention"
    return f"{FORMAT} llama.cpp {llama.__version__} {settings.cache_type} {flash} {device} {cells}"


def why_unportable(prefixes: SharedPrefixes | WholePrefixes) -> str:
    """Return why states are of no use to another process; "" if they are of use.

    The library leaves out of a state what is no longer in the window of its end, so the state of a
    block stands by itself where the window is longer.
    """
    if isinstance(prefixes, WholePrefixes):
        is_small = prefixes.state_bytes <= prefixes.store.budget_bytes
        return "" if is_small else "a state of its layers takes more memory than prefixes may take"
    is_short = 0 < prefixes.window.tokens <= STATE_TOKENS
    return f"its window has only {prefixes.window.tokens} tokens" if is_short else ""
