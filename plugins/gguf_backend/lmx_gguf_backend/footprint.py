"""How much memory a GGUF model takes when it is loaded, from its metadata alone.

Rather too much than too little: 0-5 % above llama.cpp's own figure (``lmx_measure_memory``) for
SmolLM2-135M with caches of 2,000 to 32,000 tokens; the tests hold it within 15 %.
"""

from __future__ import annotations

from lmx_gguf_backend.model_file import ModelFile
from lmx_kernel.types import LoadOptions, MemoryEstimate

CELLS_STEP = 256
"""llama.cpp rounds the cells of a cache up to a multiple of this."""

ROWS = 512
"""Rows of one computation (n_ubatch): the compute buffer grows with them."""

PARKED_SHARE = 4
"""Parked prefixes may take one part in this many of what the cache takes."""

ENCODER_ROWS = 256
"""Texts are embedded together up to so many tokens; beyond, each costs more the more there are (of
23 tokens, in a second of CPU: 78 one by one, 120 by 8, 99 by 32, 77 by 64).
"""

ENCODER_SLOTS = 64
"""Texts of one computation."""

VOCABULARY_BYTES = 350
"""Of tables for one token of the vocabulary (350 measured for a BPE, 160 for an SPM model)."""

PROCESS_BYTES = 64 << 20
"""An interpreter with numpy and the library."""

CACHE_BYTES = {"f16": 2.0, "q8_0": 1.0625}
"""Of one number in the cache, by its type."""


def estimate(model: ModelFile, options: LoadOptions, cache_type: str = "f16") -> MemoryEstimate:
    """Return what ``model`` takes when it is loaded with ``options``.

    The window of sliding-window layers is ignored: the engine keeps them whole.
    """
    parallel = options.parallel
    return MemoryEstimate(
        weights_bytes=sum(tensor.size_bytes for tensor in model.tensors),
        cache_bytes=cache_bytes(model, options, cache_type) + parallel * _state_bytes(model),
        overhead_bytes=_compute_bytes(model, _cells(options), parallel)
        + parked_bytes(model, options, cache_type)
        + runtime_bytes(model.vocabulary),
    )


def encoder_rows(options: LoadOptions) -> int:
    """Return the rows of one computation of texts that become vectors: the longest is one."""
    return max(options.context_length, ENCODER_ROWS)


def estimate_encoder(
    model: ModelFile, options: LoadOptions, *, flash_attention: bool = True
) -> MemoryEstimate:
    """Return what ``model`` takes when it is loaded to embed; only causal ones have a cache."""
    rows = encoder_rows(options)
    is_causal = model.flag(model.own("attention.causal"), default=True)
    return MemoryEstimate(
        weights_bytes=sum(tensor.size_bytes for tensor in model.tensors),
        cache_bytes=int(rows * _numbers_per_cell(model) * CACHE_BYTES["f16"]) if is_causal else 0,
        overhead_bytes=_encoder_bytes(model, rows, flash_attention=flash_attention)
        + runtime_bytes(model.vocabulary),
    )


def cache_bytes(model: ModelFile, options: LoadOptions, cache_type: str = "f16") -> int:
    """Return what the keys and values of all cells take."""
    return int(_cells(options) * _numbers_per_cell(model) * CACHE_BYTES[cache_type])


def parked_bytes(model: ModelFile, options: LoadOptions, cache_type: str = "f16") -> int:
    """Return what parked prefixes may take beside the cache."""
    return cache_bytes(model, options, cache_type) // PARKED_SHARE


def _cells(options: LoadOptions) -> int:
    return -(-options.cache_tokens // CELLS_STEP) * CELLS_STEP


def runtime_bytes(vocabulary: int) -> int:
    """Return what a worker takes beside the library's buffers."""
    return PROCESS_BYTES + VOCABULARY_BYTES * vocabulary


def _numbers_per_cell(model: ModelFile) -> int:
    """Keys and values of one token in all layers."""
    layers = model.integer(model.own("block_count"))
    heads = model.integer(model.own("attention.head_count"), 1)
    width = model.integer(model.own("embedding_length")) // max(heads, 1)
    key = model.integer(model.own("attention.key_length"), width)
    value = model.integer(model.own("attention.value_length"), width)
    cache_heads = model.integers(model.own("attention.head_count_kv")) or (heads,)
    if len(cache_heads) == 1:
        cache_heads *= layers
    return sum(cache_heads) * (key + value)


def _state_bytes(model: ModelFile) -> int:
    """Recurrent layers keep a state for each sequence instead: f32, inner width x state size."""
    state = model.integer(model.own("ssm.state_size"))
    convolution = model.integer(model.own("ssm.conv_kernel"))
    inner = model.integer(model.own("ssm.inner_size"))
    return model.integer(model.own("block_count")) * inner * (state + convolution) * 4


def _compute_bytes(model: ModelFile, cells: int, parallel: int) -> int:
    """Activations and the attention mask of one computation, and the logits it gives out."""
    width = model.integer(model.own("embedding_length"))
    hidden = model.integer(model.own("feed_forward_length"), 4 * width)
    activations = ROWS * (6 * width + 3 * hidden) * 4
    mask = ROWS * cells * 2
    logits = 2 * (parallel + 1) * model.vocabulary * 4
    return activations + mask + logits


def _encoder_bytes(model: ModelFile, rows: int, *, flash_attention: bool) -> int:
    """Activations and the attention of one computation, and the vectors and logits it may give."""
    width = model.integer(model.own("embedding_length"))
    hidden = model.integer(model.own("feed_forward_length"), 4 * width)
    heads = 0 if flash_attention else model.integer(model.own("attention.head_count"), 1)
    outputs = ENCODER_SLOTS * (model.vocabulary + width) * 4
    return rows * (4 * width + 2 * hidden) * 4 + rows * rows * (2 + 5 * heads) + outputs
