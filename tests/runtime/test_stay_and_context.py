"""What one request says of its model: for how long it stays, and how much context it may use."""

from __future__ import annotations

import asyncio

import pytest

from lmx_kernel import errors, events
from lmx_kernel.testing.fake_model import FakeModel
from lmx_kernel.testing.harness import ask, running_kernel
from lmx_kernel.types import Finished, LoadOverrides, TextDelta

PROMPT_TOKENS = len("user: hello\nassistant:")


async def answered(kernel, request):
    """Return how many tokens an answer has, and why it ended."""
    with await kernel.generate(request) as answer:
        found = [event async for event in answer]
    tokens = sum(len(event.tokens) for event in found if isinstance(event, TextDelta))
    (end,) = (event for event in found if isinstance(event, Finished))
    return tokens, end.reason


async def test_a_model_that_may_not_stay_goes_when_it_has_nothing_to_do(tmp_path):
    async with running_kernel(tmp_path, {"m": FakeModel(answer_tokens=8)}) as stage:
        with await stage.kernel.generate(ask("m")) as answer:
            stage.kernel.keep("m", 0)
            tokens = [event async for event in answer if isinstance(event, TextDelta)]
        assert tokens
        house = asyncio.ensure_future(stage.assembly.lifecycle.run_maintenance())
        (unloaded,) = await stage.until(events.ModelUnloaded)
        house.cancel()
        assert unloaded == events.ModelUnloaded(model="m", reason="idle")
        await answered(stage.kernel, ask("m"))
        (status,) = stage.kernel.status().models
        assert status.ttl_s == 3600


async def test_how_long_it_stays_changes_nothing_else_of_the_load(tmp_path):
    async with running_kernel(tmp_path, {"m": FakeModel(answer_tokens=8)}) as stage:
        await stage.kernel.load("m", LoadOverrides(context_length=64, parallel=2, pinned=True))
        stage.kernel.keep("m", 5)
        await answered(stage.kernel, ask("m"))
        (status,) = stage.kernel.status().models
        assert (status.ttl_s, status.context_length, status.pinned) == (5, 64, True)
        assert stage.seen(events.ModelUnloaded) == []


async def test_a_model_that_is_not_loaded_is_left_alone(tmp_path):
    async with running_kernel(tmp_path, {"m": FakeModel()}) as stage:
        stage.kernel.keep("m", 5)
        assert stage.kernel.status().models == ()


async def test_prompt_and_answer_fit_the_context_that_a_request_asks_for(tmp_path):
    async with running_kernel(tmp_path, {"m": FakeModel()}) as stage:
        limit = PROMPT_TOKENS + 5
        # The last token of an answer takes no room.
        assert await answered(stage.kernel, ask("m", context_tokens=limit)) == (6, "length")
        shorter = ask("m", context_tokens=limit, max_tokens=3)
        assert await answered(stage.kernel, shorter) == (3, "length")
        longer = ask("m", context_tokens=100_000, max_tokens=3)
        assert await answered(stage.kernel, longer) == (3, "length")


async def test_a_prompt_longer_than_that_is_refused(tmp_path):
    async with running_kernel(tmp_path, {"m": FakeModel()}) as stage:
        request = ask("m", context_tokens=PROMPT_TOKENS - 1)
        with pytest.raises(errors.ContextOverflowError, match=f"{PROMPT_TOKENS - 1} tokens"):
            await answered(stage.kernel, request)
        assert await stage.kernel.count_tokens(request) == PROMPT_TOKENS
