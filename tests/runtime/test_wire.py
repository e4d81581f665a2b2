"""Messages survive the wire."""

from __future__ import annotations

from pathlib import Path

import pytest

from lmx_kernel.engine import EngineStats
from lmx_kernel.types import (
    Admitted,
    ChatPrompt,
    Embedded,
    EmbeddingPrompt,
    EngineLimits,
    EngineSpec,
    Finished,
    GenerationRequest,
    LoadOptions,
    Logprobs,
    Message,
    ModelCard,
    PrefixStoreOptions,
    PromptProgress,
    SamplingRequest,
    TextDelta,
    TextPart,
    TextPrompt,
    TokenLogprob,
    TokenPrompt,
)
from lmx_kernel.worker import messages as wire

CARD = ModelCard(
    id="a/b",
    backend="fake",
    path=Path("/models/a"),
    format="fake",
    architecture="x",
    size_bytes=1,
    context_length=8,
    capabilities=frozenset({"chat"}),
)
SPEC = EngineSpec(
    card=CARD,
    options=LoadOptions(context_length=8, parallel=1, cache_tokens=8),
    settings={"threads": 2},
    prefix_store=PrefixStoreOptions(folder=Path("/x"), ttl_s=5.0),
)
PROMPTS = [
    ChatPrompt((Message("user", (TextPart("hé\x00"), TextPart(""))),)),
    TextPrompt("x"),
    TokenPrompt((1, 2)),
    EmbeddingPrompt((TextPrompt("x"), TokenPrompt((1, 2)))),
]
LOGPROB = TokenLogprob(7, b"\xff\xfe", -0.5)
EVENTS = [
    Admitted(3),
    PromptProgress(0, 1, 2, 1),
    TextDelta(1, "x", (7, 8), (Logprobs(LOGPROB, (LOGPROB, LOGPROB)),)),
    Embedded(0, (b"\x00\xff\xfe\x01", b"")),
    Finished(0, "stop"),
    wire.Preempted(1),
    wire.Failed(0, "nan"),
]
MESSAGES = [
    wire.Open(SPEC),
    wire.Measure(SPEC),
    *(
        wire.Prepare(
            1,
            GenerationRequest(
                model="m",
                prompt=prompt,
                sampling=SamplingRequest(seed=2**63 - 1, logit_bias={5: -1.5}),
                stop=("a",),
                logprobs=2,
            ),
        )
        for prompt in PROMPTS
    ),
    wire.Start(1, 0, 2**63 - 1, (1, 2, 3)),
    wire.Drop(1),
    wire.Trim(),
    wire.End(),
    wire.Ping(),
    wire.Loading(0.5),
    wire.Opened(EngineLimits(context_length=8, max_sequences=1, cache_tokens=8)),
    wire.Measured(None),
    wire.LoadRefused("model_unusable", "no"),
    wire.Prepared(1, 2),
    wire.Refused(1, "invalid_request", "no", "prompt", {"limit": 8}),
    wire.Stepped((wire.Routed(9, tuple(EVENTS)), wire.Routed(8, ()))),
    wire.Stepped(),
    wire.Observed(EngineStats(cache_tokens_used=3, details={"peak_bytes": 1.5})),
    wire.Warned("deleted the stored prefix x: its length is wrong"),
    wire.Beat(7),
    wire.Beat(None),
    wire.Pong(),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_a_message_is_the_same_on_the_other_side(message):
    frame = wire.encode(message)
    header, payload = frame[: wire.HEADER_BYTES], frame[wire.HEADER_BYTES :]
    assert wire.length_of(header) == len(payload)
    assert wire.decode(payload) == message


def test_every_message_is_tried_here():
    tried = {type(message) for message in MESSAGES}
    assert tried == set(wire.Message.__args__)
