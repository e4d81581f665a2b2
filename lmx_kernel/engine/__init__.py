"""The engine protocol, and a kit for the authors of engines.

:mod:`~lmx_kernel.engine.protocol` is what every engine implements. The other modules are used by
worker processes only; :mod:`~lmx_kernel.engine.numpy_sampler` needs numpy, which the daemon never
imports.
"""

from lmx_kernel.engine.protocol import (
    Engine,
    EngineStats,
    Output,
    Progress,
    ProgressCallback,
    Sequence,
    Step,
    Tokenizer,
    TokenLogprobs,
    TokenMask,
)

__all__ = [
    "Engine",
    "EngineStats",
    "Output",
    "Progress",
    "ProgressCallback",
    "Sequence",
    "Step",
    "TokenLogprobs",
    "TokenMask",
    "Tokenizer",
]
