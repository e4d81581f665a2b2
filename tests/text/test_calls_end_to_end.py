"""Thoughts and calls through a whole kernel, and over the death of a worker."""

from __future__ import annotations

import json

import pytest

from lmx_kernel.events import WorkerCrashed
from lmx_kernel.testing.fake_model import FakeModel
from lmx_kernel.testing.harness import running_kernel
from lmx_kernel.types import (
    ChatPrompt,
    Finished,
    GenerationRequest,
    Message,
    ReasoningDelta,
    TextDelta,
    TextPart,
    Tool,
    ToolCallDelta,
    ToolCallStarted,
)

ARGUMENTS = {"path": 'a\n"b".txt', "lines": [1, 2, 3]}
CALL = json.dumps({"name": "edit", "arguments": ARGUMENTS})
SAYS = f"<think>hm</think>I edit.\n<tool_call>\n{CALL}\n</tool_call>"

EDIT = Tool(name="edit", parameters={"additionalProperties": True})


def request(**more):
    prompt = ChatPrompt((Message("user", (TextPart("hi"),)),), (EDIT,))
    return GenerationRequest(model="m", prompt=prompt, **more)


async def answer_of(stage, **more):
    with await stage.kernel.generate(request(**more)) as answer:
        return [event async for event in answer], answer.usage()


def said(events, kind, candidate=0):
    return [event for event in events if isinstance(event, kind) and event.candidate == candidate]


@pytest.mark.parametrize("crash_at", [0, SAYS.index("hm"), SAYS.index('"path'), SAYS.index("2, 3")])
async def test_a_call_is_the_same_if_the_worker_dies_within_it(tmp_path, crash_at):
    scripts = {"m": FakeModel(says=SAYS, crash_at=crash_at)}
    async with running_kernel(tmp_path, scripts) as stage:
        events, usage = await answer_of(stage)
        assert len(stage.seen(WorkerCrashed)) == (1 if crash_at else 0)
    assert "".join(event.text for event in said(events, ReasoningDelta)) == "hm"
    assert "".join(event.text for event in said(events, TextDelta)) == "I edit.\n"
    assert [event.name for event in said(events, ToolCallStarted)] == ["edit"]
    arguments = "".join(event.arguments for event in said(events, ToolCallDelta))
    assert json.loads(arguments) == ARGUMENTS
    assert said(events, Finished)[0].reason == "tool_calls"
    assert usage.reasoning_tokens == len(">hm</think>")


async def test_every_candidate_has_calls_of_its_own(tmp_path):
    async with running_kernel(tmp_path, {"m": FakeModel(says=SAYS)}) as stage:
        events, usage = await answer_of(stage, candidates=3)
    ids = [said(events, ToolCallStarted, candidate)[0].id for candidate in range(3)]
    assert len(set(ids)) == 3
    assert usage.reasoning_tokens == 3 * len(">hm</think>")
