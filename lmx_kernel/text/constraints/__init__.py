"""Structured output: what a plugin that constrains answers implements, and how it is found."""

from lmx_kernel.text.constraints.lookup import find_engine
from lmx_kernel.text.constraints.protocol import (
    CandidateMask,
    ConstraintEngine,
    ConstraintEngineKind,
    ConstraintPlan,
    is_constrained,
)

__all__ = [
    "CandidateMask",
    "ConstraintEngine",
    "ConstraintEngineKind",
    "ConstraintPlan",
    "find_engine",
    "is_constrained",
]
