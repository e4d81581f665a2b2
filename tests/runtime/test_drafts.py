"""Drafts through the kernel: who turns them on, and what usage says of them."""

from __future__ import annotations

from lmx_kernel.events import RequestFinished
from lmx_kernel.testing.fake_model import FakeModel
from lmx_kernel.testing.harness import ask, running_kernel
from lmx_kernel.types import SamplingRequest, TextDelta

SAYS = "The quick brown fox jumps over the lazy dog, and the quick brown cat jumps over it too."
DRAFTING = FakeModel(says=SAYS, checks_drafts=True)
CONFIG = '[[model]]\nmatch = "off"\ndrafts = []\n[[model]]\nmatch = "on"\ndrafts = ["copy"]\n'


async def cost(kernel, model, text="hello", **fields):
    """Return the usage of an answer, which must be whole."""
    request = ask(model, text, sampling=SamplingRequest(seed=1), **fields)
    with await kernel.generate(request) as answer:
        events = [event async for event in answer]
    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == SAYS
    return answer.usage()


async def test_drafts_are_counted_where_they_are_on(tmp_path):
    scripts = {"on": DRAFTING, "off": DRAFTING}
    async with running_kernel(tmp_path, scripts, CONFIG) as stage:
        copied = await cost(stage.kernel, "on", f"Say this again: {SAYS}")
        predicted = await cost(stage.kernel, "on", prediction=SAYS.replace("fox", "ox"))
        for usage in (copied, predicted):
            assert len(SAYS) / 3 < usage.accepted_draft_tokens <= usage.draft_tokens
            assert usage.accepted_draft_tokens < usage.completion_tokens == len(SAYS) + 1
        nothing = await cost(stage.kernel, "off", SAYS, prediction=SAYS)
        assert (nothing.draft_tokens, nothing.accepted_draft_tokens) == (0, 0)
        assert [event.usage for event in stage.seen(RequestFinished)] == [
            copied,
            predicted,
            nothing,
        ]
