"""How much memory an MLX model takes when it is loaded, from its headers alone.

Rather too much than too little: windows of sliding-window layers are ignored.
"""

from __future__ import annotations

from attrs import frozen

from lmx_kernel.engine.footprint import (
    BATCH_BYTES,
    CELLS_STEP,
    PREFIX_SHARE,
    QUEUE_BYTES,
    ROWS,
    TransformerShape,
)
from lmx_kernel.types import LoadOptions, MemoryEstimate
from lmx_mlx_backend.folder import ModelFolder

FLOATS = ("F16", "BF16", "F32")

PADDING_SHARE = 8
"""Padding in batches of unequal rows may take one part in this many of the cache."""

VOCABULARY_BYTES = 1200
"""Of tokenizers and tables, for one token of the vocabulary."""

PROCESS_BYTES = 320 << 20
"""An interpreter with MLX, mlx-lm and what that imports."""

DISK_BYTES = QUEUE_BYTES + BATCH_BYTES
"""States on their way to the disk and back."""


@frozen
class Footprint:
    """What a model takes.

    :param number_bytes: size of a number in caches and activations.
    """

    shape: TransformerShape
    options: LoadOptions
    number_bytes: int

    @classmethod
    def of(cls, folder: ModelFolder, options: LoadOptions, *, on_cpu: bool) -> Footprint:
        """Return what the model in ``folder`` takes.

        :param on_cpu: where all floats become float32; a GPU computes with them as they are.
        """
        number_bytes = 4 if on_cpu else _number_bytes(folder)
        return cls(_shape_of(folder, on_cpu=on_cpu), options, number_bytes)

    def estimate(self) -> MemoryEstimate:
        """Return what it takes in all."""
        cache_bytes, shape = self.cache_bytes, self.shape
        slack_bytes = self.options.parallel * CELLS_STEP * self.token_bytes
        scores = 2 * shape.heads * ROWS * self.options.context_length
        return MemoryEstimate(
            weights_bytes=shape.weights_bytes,
            cache_bytes=cache_bytes + cache_bytes // PADDING_SHARE + slack_bytes,
            overhead_bytes=self.kept_bytes
            + shape.activations_bytes(8, 3, self.number_bytes)
            + scores * self.number_bytes
            + 4 * shape.logits_bytes(self.options.parallel + 32)
            + shape.process_bytes(PROCESS_BYTES + DISK_BYTES, VOCABULARY_BYTES),
        )

    @property
    def cache_bytes(self) -> int:
        """Of all cells, and of the states of recurrent layers."""
        cells_bytes = self.shape.cells_bytes(self.options.cache_tokens, self.number_bytes)
        return cells_bytes + self.shape.states_bytes(self.options.parallel)

    @property
    def kept_bytes(self) -> int:
        """What kept prefixes may take beside the cache; recurrent states are kept whole or not."""
        states_bytes = self.shape.states_bytes(self.options.parallel)
        return states_bytes + (self.cache_bytes - states_bytes) // PREFIX_SHARE

    @property
    def token_bytes(self) -> int:
        """Of one token in the caches of all layers; 0 if they are all recurrent."""
        return self.shape.cells_bytes(1, self.number_bytes)


def _shape_of(folder: ModelFolder, *, on_cpu: bool) -> TransformerShape:
    integer = folder.integer
    width = integer("hidden_size") or integer("n_embd") or integer("d_model")
    heads = integer("num_attention_heads") or integer("n_head")
    return TransformerShape(
        weights_bytes=_loaded_bytes(folder, on_cpu=on_cpu),
        width=width,
        hidden=integer("intermediate_size", 4 * width),
        heads=heads,
        cell_numbers=_cell_numbers(folder, width, heads),
        state_numbers=_state_numbers(folder, width),
        vocabulary=integer("vocab_size"),
    )


def _cell_numbers(folder: ModelFolder, width: int, heads: int) -> int:
    integer = folder.integer
    layers = integer("num_hidden_layers") or integer("n_layer")
    if integer("kv_lora_rank"):
        return layers * 2 * (integer("kv_lora_rank") + integer("qk_rope_head_dim"))
    if not heads:
        return 0
    head_width = integer("head_dim") or width // heads
    return layers * 2 * (integer("num_key_value_heads") or heads) * head_width


def _state_numbers(folder: ModelFolder, width: int) -> int:
    """Recurrent layers keep, for each sequence, inner width x (state + convolution)."""
    integer = folder.integer
    keys = ("state_size", "ssm_state_size", "mamba_d_state", "linear_key_head_dim")
    state = max(map(integer, keys))
    inner = integer("intermediate_size", 2 * width)
    return integer("num_hidden_layers") * inner * (state + 4) if state else 0


def _number_bytes(folder: ModelFolder) -> int:
    """Return the size of a number on a GPU, which is as wide as most of the weights."""
    sizes = dict.fromkeys(FLOATS, 0) | folder.sizes
    return 4 if sizes["F32"] > sizes["F16"] + sizes["BF16"] else 2


def _loaded_bytes(folder: ModelFolder, *, on_cpu: bool) -> int:
    floats = FLOATS if on_cpu else ()
    as_they_are = sum(size for dtype, size in folder.sizes.items() if dtype not in floats)
    return as_they_are + 4 * sum(folder.elements.get(dtype, 0) for dtype in floats)
