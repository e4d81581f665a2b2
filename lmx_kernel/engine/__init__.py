"""The engine protocol, and a kit for the authors of engines.

:mod:`~lmx_kernel.engine.protocol` is what every engine implements. The kit is optional:

- :mod:`~lmx_kernel.engine.running`: which sequences run, and what a step reports of them;
- :mod:`~lmx_kernel.engine.sampling`: what all samplers agree on, and a sampler in numpy,
  :mod:`~lmx_kernel.engine.numpy_sampler` (the extra ``lmx-kernel[engine]``);
- :mod:`~lmx_kernel.engine.logits`: applies the logits processors of plugins;
- :mod:`~lmx_kernel.engine.drafting`: how many guessed tokens a step computes, from
  :mod:`~lmx_kernel.engine.drafts`;
- :mod:`~lmx_kernel.engine.footprint`: the memory that a transformer takes, from its shape;
- :mod:`lmx_kernel.models.headers`: a backend that reads the headers of model files once;
- :mod:`lmx_kernel.testing.conformance.engine`: tests for any engine.

Only worker processes import :mod:`~lmx_kernel.engine.numpy_sampler`: the daemon has no numpy.
"""

from lmx_kernel.engine.draft_kind import DraftKind
from lmx_kernel.engine.draft_rows import DraftPiece, DraftRows
from lmx_kernel.engine.protocol import (
    Engine,
    EngineStats,
    ExactDrafts,
    InterruptibleSteps,
    LogitsKind,
    LogitsProcessor,
    LongSteps,
    Output,
    Progress,
    ProgressCallback,
    Sequence,
    Step,
    StepBuilder,
    Tokenizer,
    TokenLogprobs,
    TokenMask,
)
from lmx_kernel.engine.states import (
    STATE_TOKENS,
    HasPortableStates,
    PortableStates,
    WholeStates,
)

__all__ = [
    "STATE_TOKENS",
    "DraftKind",
    "DraftPiece",
    "DraftRows",
    "Engine",
    "EngineStats",
    "ExactDrafts",
    "HasPortableStates",
    "InterruptibleSteps",
    "LogitsKind",
    "LogitsProcessor",
    "LongSteps",
    "Output",
    "PortableStates",
    "Progress",
    "ProgressCallback",
    "Sequence",
    "Step",
    "StepBuilder",
    "TokenLogprobs",
    "TokenMask",
    "Tokenizer",
    "WholeStates",
]
