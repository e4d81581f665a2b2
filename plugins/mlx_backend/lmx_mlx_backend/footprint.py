"""How much memory an MLX model takes when it is loaded, from its headers alone.

Rather too much than too little: windows of sliding-window layers are ignored.
"""

from __future__ import annotations

from attrs import frozen

from lmx_kernel.types import LoadOptions, MemoryEstimate
from lmx_mlx_backend.folder import ModelFolder
from lmx_mlx_backend.safetensors import Tensor

FLOATS = ("F16", "BF16", "F32")

ROWS = 512
"""Prompt rows of one computation, at most."""

PADDING_SHARE = 8
"""Padding in batches of unequal rows may take one part in this many of the cache."""

KEPT_SHARE = 4
"""CachedPrefix prefixes may take one part in this many of what the cache takes."""

CELLS_STEP = 256
"""mlx-lm's caches grow by this many tokens a row."""

VOCABULARY_BYTES = 1200
"""Of tokenizers and tables, for one token of the vocabulary."""

PROCESS_BYTES = 320 << 20
"""An interpreter with MLX, mlx-lm and what that imports."""


@frozen
class Footprint:
    """What a model takes.

    :param on_cpu: where all floats become float32; a GPU computes with them as they are.
    """

    folder: ModelFolder
    options: LoadOptions
    on_cpu: bool

    def estimate(self) -> MemoryEstimate:
        """Return what it takes in all."""
        cache = self.cache_bytes
        slack_bytes = self.options.parallel * CELLS_STEP * self.token_bytes
        return MemoryEstimate(
            weights_bytes=self.weights_bytes,
            cache_bytes=cache + cache // PADDING_SHARE + slack_bytes,
            overhead_bytes=self.kept_bytes
            + self._compute_bytes()
            + PROCESS_BYTES
            + VOCABULARY_BYTES * self.folder.integer("vocab_size"),
        )

    @property
    def weights_bytes(self) -> int:
        """Of the weights in memory."""
        return sum(map(self._loaded_bytes, self.folder.tensors))

    @property
    def cache_bytes(self) -> int:
        """Of all cells, and of the states of recurrent layers."""
        cells = self.options.cache_tokens * self.token_bytes
        return cells + self.options.parallel * self._state_bytes()

    @property
    def kept_bytes(self) -> int:
        """What kept prefixes may take beside the cache."""
        return self.cache_bytes // KEPT_SHARE

    @property
    def token_bytes(self) -> int:
        """Of one token in the caches of all layers; 0 if they are all recurrent."""
        integer = self.folder.integer
        layers = integer("num_hidden_layers") or integer("n_layer")
        if integer("kv_lora_rank"):
            latent = integer("kv_lora_rank") + integer("qk_rope_head_dim")
            return layers * 2 * latent * self._float_bytes
        heads = self._heads
        if not heads:
            return 0
        width = integer("head_dim") or self._width // heads
        return layers * 2 * (integer("num_key_value_heads") or heads) * width * self._float_bytes

    @property
    def _float_bytes(self) -> int:
        """Of a number in caches and activations: on a GPU as wide as most of the weights."""
        sizes = dict.fromkeys(FLOATS, 0)
        for tensor in self.folder.tensors:
            if tensor.dtype in sizes:
                sizes[tensor.dtype] += tensor.size_bytes
        is_wide = sizes["F32"] > sizes["F16"] + sizes["BF16"]
        return 4 if self.on_cpu or is_wide else 2

    def _loaded_bytes(self, tensor: Tensor) -> int:
        is_widened = self.on_cpu and tensor.dtype in FLOATS
        return tensor.elements * 4 if is_widened else tensor.size_bytes

    @property
    def _width(self) -> int:
        integer = self.folder.integer
        return integer("hidden_size") or integer("n_embd") or integer("d_model")

    @property
    def _heads(self) -> int:
        return self.folder.integer("num_attention_heads") or self.folder.integer("n_head")

    def _state_bytes(self) -> int:
        """Recurrent layers keep, for each sequence, inner width x (state + convolution)."""
        integer = self.folder.integer
        keys = ("state_size", "ssm_state_size", "mamba_d_state", "linear_key_head_dim")
        state = max(map(integer, keys))
        inner = integer("intermediate_size", 2 * self._width)
        return integer("num_hidden_layers") * inner * (state + 4) * 4 if state else 0

    def _compute_bytes(self) -> int:
        """Activations and attention scores of one piece of a prompt, and the logits of a step."""
        hidden = self.folder.integer("intermediate_size", 4 * self._width)
        activations = ROWS * (8 * self._width + 3 * hidden) * self._float_bytes
        scores = 2 * self._heads * ROWS * self.options.context_length * self._float_bytes
        logits = 4 * (self.options.parallel + 32) * self.folder.integer("vocab_size") * 4
        return activations + scores + logits
