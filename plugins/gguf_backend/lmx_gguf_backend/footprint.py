"""How much memory a GGUF model takes when it is loaded, from its metadata alone.

Rather too much than too little: 0-5 % above llama.cpp's own figure (``lmx_measure_memory``) for
SmolLM2-135M with caches of 2,000 to 32,000 tokens; the tests hold it within 15 %.
"""

from __future__ import annotations

from lmx_gguf_backend.model_file import ModelFile
from lmx_kernel.engine.footprint import (
    BATCH_BYTES,
    PREFIX_SHARE,
    QUEUE_BYTES,
    ROWS,
    TransformerShape,
    whole_cells,
)
from lmx_kernel.types import LoadOptions, MemoryEstimate

ENCODER_ROWS = 256
"""Texts are embedded together up to so many tokens; beyond, each costs more the more there are (of
23 tokens, in a second of CPU: 78 one by one, 120 by 8, 99 by 32, 77 by 64).
"""

ENCODER_SLOTS = 64
"""Texts of one computation."""

DRAFTED_ROWS = 8
"""Of one sequence, a token with its drafts: more rows gain nothing on a CPU."""

VOCABULARY_BYTES = 350
"""Of tables for one token of the vocabulary (350 measured for a BPE, 160 for an SPM model)."""

PROCESS_BYTES = 64 << 20
"""An interpreter with numpy and the library."""

DISK_BYTES = QUEUE_BYTES + BATCH_BYTES
"""States on their way to the disk and back."""

CACHE_BYTES = {"f16": 2.0, "q8_0": 1.0625}
"""Of one number in the cache, by its type."""


def output_rows(parallel: int) -> int:
    """Return of how many rows a computation may give the logits.

    :param parallel: sequences that may run at once.
    """
    return max(parallel + 1, DRAFTED_ROWS)


def estimate(model: ModelFile, options: LoadOptions, cache_type: str = "f16") -> MemoryEstimate:
    """Return what ``model`` takes when it is loaded with ``options``.

    The window of sliding-window layers is ignored: the engine keeps them whole.
    """
    shape, cells = shape_of(model), whole_cells(options.cache_tokens)
    attention_mask_bytes = ROWS * cells * 2
    return MemoryEstimate(
        weights_bytes=shape.weights_bytes,
        cache_bytes=shape.cells_bytes(cells, CACHE_BYTES[cache_type])
        + shape.states_bytes(options.parallel),
        overhead_bytes=shape.activations_bytes(6, 3, 4)
        + attention_mask_bytes
        + 2 * shape.logits_bytes(output_rows(options.parallel))
        + parked_bytes(shape, options, cache_type)
        + process_bytes(shape),
    )


def estimate_encoder(
    model: ModelFile, options: LoadOptions, *, flash_attention: bool = True
) -> MemoryEstimate:
    """Return what ``model`` takes when it is loaded to embed; only causal ones have a cache."""
    shape, rows = shape_of(model), encoder_rows(options)
    is_causal = model.flag(model.own("attention.causal"), default=True)
    attention_bytes = rows * rows * (2 + (0 if flash_attention else 5 * shape.heads))
    vectors_bytes = ENCODER_SLOTS * shape.width * 4
    return MemoryEstimate(
        weights_bytes=shape.weights_bytes,
        cache_bytes=shape.cells_bytes(rows, CACHE_BYTES["f16"]) if is_causal else 0,
        overhead_bytes=shape.activations_bytes(4, 2, 4, rows)
        + attention_bytes
        + shape.logits_bytes(ENCODER_SLOTS)
        + vectors_bytes
        + process_bytes(shape),
    )


def encoder_rows(options: LoadOptions) -> int:
    """Return the rows of one computation of texts that become vectors: the longest is one."""
    return max(options.context_length, ENCODER_ROWS)


def parked_bytes(shape: TransformerShape, options: LoadOptions, cache_type: str) -> int:
    """Return what parked prefixes may take beside the cache; recurrent states are kept whole."""
    cells_bytes = shape.cells_bytes(whole_cells(options.cache_tokens), CACHE_BYTES[cache_type])
    return cells_bytes // PREFIX_SHARE + shape.states_bytes(options.parallel)


def process_bytes(shape: TransformerShape) -> int:
    """Return what a worker takes beside the library's buffers."""
    return shape.process_bytes(PROCESS_BYTES + DISK_BYTES, VOCABULARY_BYTES)


def shape_of(model: ModelFile) -> TransformerShape:
    """Return what the metadata says of the model's size."""

    def own(key: str, default: int = 0) -> int:
        return model.integer(model.own(key), default)

    layers, width = own("block_count"), own("embedding_length")
    heads = own("attention.head_count", 1)
    head_width = width // max(heads, 1)
    key_width = own("attention.key_length", head_width)
    value_width = own("attention.value_length", head_width)
    cache_heads = model.integers(model.own("attention.head_count_kv")) or (heads,)
    if len(cache_heads) == 1:
        cache_heads *= layers
    state_width = own("ssm.state_size") + own("ssm.conv_kernel")
    return TransformerShape(
        weights_bytes=model.weights_bytes,
        width=width,
        hidden=own("feed_forward_length", 4 * width),
        heads=heads,
        cell_numbers=sum(cache_heads) * (key_width + value_width),
        state_numbers=layers * own("ssm.inner_size") * state_width,
        vocabulary=model.vocabulary,
    )
