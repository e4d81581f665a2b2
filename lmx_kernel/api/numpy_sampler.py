"""For engines: a sampler in numpy. Needs the extra ``lmx-kernel[engine]``."""

from lmx_kernel.engine.numpy_sampler import (
    Sampler,
    logprobs,
    mask_words,
    read_masks,
    top,
)

__all__ = [
    "Sampler",
    "logprobs",
    "mask_words",
    "read_masks",
    "top",
]
