"""For API surfaces: what dialects have in common."""

from lmx_kernel.dialect.audit import (
    audited,
    audited_for,
)
from lmx_kernel.dialect.collected import (
    CollectedAnswer,
    collect,
)
from lmx_kernel.dialect.error_object import (
    default_error_body,
    error_body,
)
from lmx_kernel.dialect.fields import (
    INT32_MAX,
    Bias,
    DraftModelName,
    Effort,
    FunctionName,
    JsonObject,
    MinP,
    ModelName,
    Penalty,
    RepetitionPenalty,
    Seed,
    StopText,
    StopTexts,
    Temperature,
    TokenId,
    TopK,
    TopLogprobs,
    TopP,
)
from lmx_kernel.dialect.job_watch import (
    JobWatch,
    check_done,
)
from lmx_kernel.dialect.json_values import (
    check_json,
    schema_constraint,
)
from lmx_kernel.dialect.models import (
    usable_model,
)
from lmx_kernel.dialect.owner import (
    owner_of,
)
from lmx_kernel.dialect.recorded import (
    RecordedAnswer,
)
from lmx_kernel.dialect.refused import (
    ABSENT,
    check_supported,
    misplaced,
    refused,
)
from lmx_kernel.dialect.sampling import (
    make_sampling,
)
from lmx_kernel.dialect.service_tier import (
    granted_tier,
    priority_of,
)
from lmx_kernel.dialect.tools import (
    check_offered,
    required,
)
from lmx_kernel.dialect.vectors import (
    shortened,
)

__all__ = [
    "ABSENT",
    "INT32_MAX",
    "Bias",
    "CollectedAnswer",
    "DraftModelName",
    "Effort",
    "FunctionName",
    "JobWatch",
    "JsonObject",
    "MinP",
    "ModelName",
    "Penalty",
    "RecordedAnswer",
    "RepetitionPenalty",
    "Seed",
    "StopText",
    "StopTexts",
    "Temperature",
    "TokenId",
    "TopK",
    "TopLogprobs",
    "TopP",
    "audited",
    "audited_for",
    "check_done",
    "check_json",
    "check_offered",
    "check_supported",
    "collect",
    "default_error_body",
    "error_body",
    "granted_tier",
    "make_sampling",
    "misplaced",
    "owner_of",
    "priority_of",
    "refused",
    "required",
    "schema_constraint",
    "shortened",
    "usable_model",
]
