"""Drafts through the kernel: who turns them on, and what usage says of them."""

from __future__ import annotations

import asyncio

import pytest

from lmx_kernel.errors import ConflictError, InvalidRequestError, LmxError
from lmx_kernel.events import LoadStarted, RequestFinished
from lmx_kernel.testing.fake_model import FakeModel
from lmx_kernel.testing.harness import ask, running_kernel
from lmx_kernel.types import LoadOverrides, SamplingRequest, TextDelta

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


# --- draft models

COUNTS = FakeModel(checks_drafts=True, answer_tokens=40)
SMALL = FakeModel(vocabulary="")
MODELS = {
    "big": COUNTS,
    "own": COUNTS,
    "closed": COUNTS,
    "small": SMALL,
    "other": FakeModel(vocabulary="another"),
    "huge": FakeModel(memory_bytes=1 << 50),
    "vectors": FakeModel(embeds=True),
}
OWN = """
[[model]]
match = "own"
drafts = ["copy", "small"]
[[model]]
match = "closed"
drafts = []
"""


async def counted(kernel, model, **fields):
    """Return the text of an answer, and its usage."""
    request = ask(model, "hello", sampling=SamplingRequest(seed=1), **fields)
    with await kernel.generate(request) as answer:
        text = "".join([event.text async for event in answer if isinstance(event, TextDelta)])
    return text, answer.usage()


async def test_a_draft_model_of_the_settings_drafts_for_all_requests(tmp_path):
    async with running_kernel(tmp_path, MODELS, OWN) as stage:
        text, usage = await counted(stage.kernel, "own")
        assert text == (await counted(stage.kernel, "closed"))[0]
        assert usage.draft_model == "small"
        assert usage.accepted_draft_tokens > 20
        (status,) = [one for one in stage.kernel.model_statuses() if one.id == "own"]
        assert status.memory_bytes == 2 * SMALL.memory_bytes, "the ledger holds both"


async def test_a_request_may_name_a_draft_model(tmp_path):
    """It is loaded with the model: at once, or again if the model is loaded without it. Requests
    that name none go on without.
    """
    async with running_kernel(tmp_path, MODELS, OWN) as stage:
        plain, usage = await counted(stage.kernel, "big")
        assert (usage.draft_model, usage.draft_tokens) == ("", 0)
        running = asyncio.ensure_future(counted(stage.kernel, "big"))
        for _ in range(2):
            text, usage = await counted(stage.kernel, "big", draft_model="SMALL")
            assert (text, usage.draft_model) == (plain, "small")
            assert usage.accepted_draft_tokens > 20
        assert (await running)[0] == plain
        loads = [event for event in stage.seen(LoadStarted) if event.model == "big"]
        assert len(loads) == 2
        text, usage = await counted(stage.kernel, "big")
        assert (text, usage.draft_model) == (plain, "")


async def test_without_jit_a_request_loads_no_draft_model(tmp_path):
    config = f"{OWN}\n[models]\njit = false\n"
    async with running_kernel(tmp_path, MODELS, config) as stage:
        for model in ("big", "own"):
            await stage.kernel.load(model, LoadOverrides())
        with pytest.raises(InvalidRequestError, match=r"models\.jit is off"):
            await counted(stage.kernel, "big", draft_model="small")
        assert (await counted(stage.kernel, "own", draft_model="small"))[1].draft_model == "small"


async def test_a_draft_model_that_is_loaded_is_not_deleted(tmp_path):
    async with running_kernel(tmp_path, MODELS, OWN) as stage:
        await counted(stage.kernel, "own")
        with pytest.raises(ConflictError, match="small has files of own"):
            await stage.kernel.delete("small")
        await stage.kernel.unload("own")
        await stage.kernel.delete("small")


REFUSED = [
    ("big", "nobody", "nobody"),
    ("big", "other", "vocabularies differ"),
    ("big", "huge", "needed"),
    ("big", "vectors", "embeddings"),
    ("closed", "small", "nothing drafts for closed"),
    ("own", "big", "small drafts for own"),
]


@pytest.mark.parametrize(("model", "draft", "why"), REFUSED)
async def test_a_draft_model_that_cannot_draft_is_refused_before_a_load(
    tmp_path, model, draft, why
):
    async with running_kernel(tmp_path, MODELS, OWN) as stage:
        with pytest.raises(InvalidRequestError, match=why) as caught:
            await counted(stage.kernel, model, draft_model=draft)
        assert caught.value.param == "draft_model"
        assert not stage.seen(LoadStarted)


@pytest.mark.parametrize("draft", ["nobody", "other", "huge"])
async def test_settings_that_name_a_wrong_draft_model_are_an_error_of_the_load(tmp_path, draft):
    config = f'[[model]]\nmatch = "big"\ndrafts = ["{draft}"]\n'
    async with running_kernel(tmp_path, MODELS, config) as stage:
        with pytest.raises(LmxError, match=f"cannot draft for big|drafts: .*{draft}|are needed"):
            await counted(stage.kernel, "big")
