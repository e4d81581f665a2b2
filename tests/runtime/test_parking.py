"""A reader that falls behind loses nothing, whatever the answer is made of."""

from __future__ import annotations

import asyncio
import json

import pytest

from lmx_kernel.testing.fake_model import FakeModel
from lmx_kernel.testing.harness import ask, running_kernel
from lmx_kernel.types import (
    ChatPrompt,
    GenerationRequest,
    Message,
    ReasoningDelta,
    TextDelta,
    TextPart,
    Tool,
    ToolCallDelta,
)

NUMBERS = " ".join(f"{n:04}" for n in range(700))  # 3,500 tokens: more than a buffer holds
ARGUMENTS = json.dumps({"numbers": NUMBERS})
CALL = f'<tool_call>{{"name": "add", "arguments": {ARGUMENTS}}}</tool_call>'
TEMPLATE = "{% for m in messages %}{{ m.content }}{% endfor %}<tool_call>{{ tools }}"
KINDS = {
    "text": (NUMBERS, "", TextDelta, "text"),
    "reasoning": (f"<think>{NUMBERS}</think>so", TEMPLATE, ReasoningDelta, "text"),
    "call": (CALL, TEMPLATE, ToolCallDelta, "arguments"),
}


def request_for(kind):
    if kind != "call":
        return ask("m", max_tokens=6000)
    tool = Tool(name="add", parameters={"additionalProperties": True})
    prompt = ChatPrompt((Message("user", (TextPart("hello"),)),), tools=(tool,))
    return GenerationRequest(model="m", prompt=prompt, max_tokens=6000)


def joined(events, event_class, field):
    return "".join(getattr(event, field) for event in events if isinstance(event, event_class))


async def parked(running, kind, first):
    """Return the events of an answer whose reader stops after ``first`` events until it is parked,
    as often as that happens.
    """
    found = []
    with await running.kernel.generate(request_for(kind)) as answer:
        while len(found) < first:
            found.append(await answer.next())
        requests = running.instance("m").requests
        while requests.running:
            await asyncio.sleep(0.01)
        assert answer.outcome is None, "it was parked, and has not ended"
        found += [event async for event in answer]
    return found


@pytest.mark.parametrize("kind", KINDS)
async def test_an_answer_that_was_parked_is_whole(tmp_path, kind):
    says, template, event_class, field = KINDS[kind]
    model = FakeModel(says=says, template=template, context_length=8192)
    async with running_kernel(tmp_path, {"m": model}) as running:
        with await running.kernel.generate(request_for(kind)) as answer:
            undisturbed = joined([event async for event in answer], event_class, field)
        assert len(undisturbed) > 3400
        for first in range(3, 7):  # the buffer gets full at another event of a step each time
            assert joined(await parked(running, kind, first), event_class, field) == undisturbed
