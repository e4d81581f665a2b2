"""For engines: a sampler in numpy. Needs the extra ``lmx-kernel[engine]``."""

from lmx_kernel.engine.numpy_sampler import (
    Logits,
    Sampler,
    logprobs,
    mask_words,
    read_masks,
    top,
)

__all__ = [
    "Logits",
    "Sampler",
    "logprobs",
    "mask_words",
    "read_masks",
    "top",
]
