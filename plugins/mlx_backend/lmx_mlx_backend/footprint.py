"""How much memory an MLX model takes when it is loaded, from its headers alone.

Rather too much than too little: on a Linux CPU everything is computed in float32, so that is how
floats are counted there; windows of sliding-window layers are ignored.
"""

from __future__ import annotations

import sys

from lmx_kernel.types import LoadOptions, MemoryEstimate
from lmx_mlx_backend.folder import ModelFolder
from lmx_mlx_backend.safetensors import Tensor

FLOATS = ("F16", "BF16", "F32")
FLOAT_BYTES = 4 if sys.platform == "linux" else 2
"""Of a number in caches and activations."""

ROWS = 512
"""Prompt rows of one computation, at most."""

PADDING_SHARE = 8
"""Padding in batches of unequal rows may take one part in this many of the cache."""

KEPT_SHARE = 4
"""Kept prefixes may take one part in this many of what the cache takes."""

CELLS_STEP = 256
"""mlx-lm's caches grow by this many tokens a row."""

VOCABULARY_BYTES = 1200
"""Of tokenizers and tables, for one token of the vocabulary."""

PROCESS_BYTES = 320 << 20
"""An interpreter with MLX, mlx-lm and what that imports."""


def estimate(folder: ModelFolder, options: LoadOptions) -> MemoryEstimate:
    """Return what the model takes when it is loaded with ``options``."""
    cache = cache_bytes(folder, options)
    slack_bytes = options.parallel * CELLS_STEP * token_bytes(folder)
    return MemoryEstimate(
        weights_bytes=sum(map(_loaded_bytes, folder.tensors)),
        cache_bytes=cache + cache // PADDING_SHARE + slack_bytes,
        overhead_bytes=kept_bytes(folder, options)
        + _compute_bytes(folder, options)
        + PROCESS_BYTES
        + VOCABULARY_BYTES * folder.integer("vocab_size"),
    )


def cache_bytes(folder: ModelFolder, options: LoadOptions) -> int:
    """Return what all cells, and the states of recurrent layers, take."""
    return options.cache_tokens * token_bytes(folder) + options.parallel * _state_bytes(folder)


def kept_bytes(folder: ModelFolder, options: LoadOptions) -> int:
    """Return what kept prefixes may take beside the cache."""
    return cache_bytes(folder, options) // KEPT_SHARE


def token_bytes(folder: ModelFolder) -> int:
    """Return what one token takes in the caches of all layers; 0 if they are all recurrent."""
    layers = folder.integer("num_hidden_layers") or folder.integer("n_layer")
    latent = folder.integer("kv_lora_rank") + folder.integer("qk_rope_head_dim")
    if folder.integer("kv_lora_rank"):
        return layers * 2 * latent * FLOAT_BYTES
    heads = folder.integer("num_attention_heads") or folder.integer("n_head")
    if not heads:
        return 0
    width = folder.integer("head_dim") or _width(folder) // heads
    return layers * 2 * (folder.integer("num_key_value_heads") or heads) * width * FLOAT_BYTES


def _loaded_bytes(tensor: Tensor) -> int:
    is_float = tensor.dtype in FLOATS
    return tensor.elements * max(FLOAT_BYTES, 2) if is_float else tensor.size_bytes


def _width(folder: ModelFolder) -> int:
    return folder.integer("hidden_size") or folder.integer("n_embd") or folder.integer("d_model")


def _state_bytes(folder: ModelFolder) -> int:
    """Recurrent layers keep, for each sequence, inner width x (state + convolution)."""
    keys = ("state_size", "ssm_state_size", "mamba_d_state", "linear_key_head_dim")
    state = max(map(folder.integer, keys))
    inner = folder.integer("intermediate_size", 2 * _width(folder))
    return folder.integer("num_hidden_layers") * inner * (state + 4) * 4 if state else 0


def _compute_bytes(folder: ModelFolder, options: LoadOptions) -> int:
    """Activations and attention scores of one piece of a prompt, and the logits of a step."""
    width = _width(folder)
    hidden = folder.integer("intermediate_size", 4 * width)
    heads = folder.integer("num_attention_heads") or folder.integer("n_head")
    activations = ROWS * (8 * width + 3 * hidden) * FLOAT_BYTES
    scores = 2 * heads * ROWS * options.context_length * FLOAT_BYTES
    logits = 4 * (options.parallel + 32) * folder.integer("vocab_size") * 4
    return activations + scores + logits
