"""For engines: the protocol, and what engines have in common. Only workers import it."""

from lmx_kernel.engine import (
    STATE_TOKENS,
    DraftKind,
    DraftPiece,
    DraftRows,
    Engine,
    EngineStats,
    ExactDrafts,
    HasPortableStates,
    InterruptibleSteps,
    LogitsKind,
    LogitsProcessor,
    LongSteps,
    Output,
    PortableStates,
    Progress,
    ProgressCallback,
    Sequence,
    Step,
    StepBuilder,
    Tokenizer,
    TokenLogprobs,
    TokenMask,
    WholeStates,
)
from lmx_kernel.engine.cores import (
    usable_cores,
)
from lmx_kernel.engine.drafting import (
    Drafting,
)
from lmx_kernel.engine.drafts import (
    DraftSource,
)
from lmx_kernel.engine.logits import (
    NO_TOKEN,
    apply_processors,
)
from lmx_kernel.engine.numerics import (
    HasNumerics,
    Numerics,
)
from lmx_kernel.engine.running import (
    NOT_FINITE,
    RunningSequence,
    RunningSet,
)
from lmx_kernel.engine.sampling import (
    COLD,
    MOST_BIAS,
    PROMPT_TAIL,
    check_sampling,
    has_penalties,
    uniform,
)
from lmx_kernel.engine.sequences import (
    check_sequence,
)
from lmx_kernel.engine.step_costs import (
    StepCosts,
)
from lmx_kernel.engine.token_runs import (
    common,
)

__all__ = [
    "COLD",
    "MOST_BIAS",
    "NOT_FINITE",
    "NO_TOKEN",
    "PROMPT_TAIL",
    "STATE_TOKENS",
    "DraftKind",
    "DraftPiece",
    "DraftRows",
    "DraftSource",
    "Drafting",
    "Engine",
    "EngineStats",
    "ExactDrafts",
    "HasNumerics",
    "HasPortableStates",
    "InterruptibleSteps",
    "LogitsKind",
    "LogitsProcessor",
    "LongSteps",
    "Numerics",
    "Output",
    "PortableStates",
    "Progress",
    "ProgressCallback",
    "RunningSequence",
    "RunningSet",
    "Sequence",
    "Step",
    "StepBuilder",
    "StepCosts",
    "TokenLogprobs",
    "TokenMask",
    "Tokenizer",
    "WholeStates",
    "apply_processors",
    "check_sampling",
    "check_sequence",
    "common",
    "has_penalties",
    "uniform",
    "usable_cores",
]
