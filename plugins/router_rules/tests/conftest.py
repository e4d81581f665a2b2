"""Requests and models as the tests of this plugin write them."""

from __future__ import annotations

import json
from pathlib import Path

from attrs import frozen

from lmx_kernel.types import (
    ChatPrompt,
    Constraint,
    EmbeddingPrompt,
    GenerationRequest,
    Message,
    TextPart,
    TextPrompt,
    Tool,
)

PROMPTS = Path(__file__).parent / "prompts"
