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


def identity_of(settings: GgufSettings, cells: int) -> str:
    """Return what the numbers of a state depend on beside the model's file.

    Some models (LongRoPE) rotate by other factors in a longer context. Threads and rows change the
    last bits of what is computed, and no more than they do in memory.

    :param cells: of the context.
    """
    device = f"gpu {settings.gpu_layers}" if has_gpu() else "cpu"
    flash = "flash attention" if settings.flash_attention else "plain attention"
    return f"{FORMAT} llama.cpp {llama.__version__} {settings.cache_type} {flash} {device} {cells}"


def can_export(prefixes: SharedPrefixes | None) -> bool:
    """Return whether the state of a block stands by itself: the library leaves out of a state what
    is no longer in the window of the block's end.
    """
    return prefixes is not None and not 0 < prefixes.window.tokens <= STATE_TOKENS
