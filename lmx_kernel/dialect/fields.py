"""Types of fields that several dialects have, with their bounds."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta

INT32_MAX = 2**31 - 1
INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1
UINT64_MAX = 2**64 - 1

JsonObject = dict[str, Any]
ModelName = Annotated[str, Meta(min_length=1, max_length=512)]
DraftModelName = Annotated[str, Meta(max_length=512)]  # clients may have an empty one
FunctionName = Annotated[str, Meta(max_length=128, pattern=r"^[\w.:/@-]+$")]
Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh"]
StopText = Annotated[str, Meta(max_length=256)]
StopTexts = Annotated[list[StopText], Meta(max_length=16)]
TokenId = Annotated[int, Meta(ge=0, le=INT32_MAX)]
Seed = Annotated[int, Meta(ge=INT64_MIN, le=INT64_MAX)]
Temperature = Annotated[float, Meta(ge=0, le=2)]
TopP = Annotated[float, Meta(ge=0, le=1)]
TopK = Annotated[int, Meta(ge=-1, le=INT32_MAX)]
MinP = Annotated[float, Meta(ge=0, le=1)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
RepetitionPenalty = Annotated[float, Meta(gt=0, le=10)]
Bias = Annotated[float, Meta(ge=-100, le=100)]
TopLogprobs = Annotated[int, Meta(ge=0, le=20)]
