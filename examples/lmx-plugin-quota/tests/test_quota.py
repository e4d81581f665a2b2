"""The quota in a kernel with a fake model."""

import asyncio

import pytest

from lmx_kernel.api import ForbiddenError
from lmx_kernel.testing.fake_model import FakeModel
from lmx_kernel.testing.harness import ask, running_kernel


async def asked(stage, key, **fields):
    with await stage.kernel.generate(ask("m", caller=key, **fields)) as answer:
        async for _ in answer:
            pass
    return answer.usage()


def counted(stage, name):
    [metric] = [one for one in stage.kernel.metrics() if one.name == f"lmx_quota_{name}"] or [None]
    return {series.labels: series.value for series in metric.series} if metric else {}


async def test_a_key_is_refused_once_it_has_used_its_tokens(tmp_path):
    config = "[quota]\ntokens_per_day = 20\n"
    async with running_kernel(tmp_path, {"m": FakeModel()}, config, ("lmx_quota",)) as stage:
        usage = await asked(stage, "alice", max_tokens=10)
        total = usage.prompt_tokens + usage.completion_tokens
        async with asyncio.timeout(30):
            while counted(stage, "tokens") != {("alice",): total}:
                await asyncio.sleep(0.01)  # events reach plugins in a thread of their own
        with pytest.raises(ForbiddenError, match=f"alice has used {total} of its 20 tokens"):
            await asked(stage, "alice", max_tokens=1)
        assert counted(stage, "refused") == {("alice",): 1}
        assert await stage.kernel.count_tokens(ask("m", caller="alice")) > 0
        await asked(stage, "bob", max_tokens=1)
        await asked(stage, "", max_tokens=30)
    async with running_kernel(tmp_path, {"m": FakeModel()}, config, ("lmx_quota",)) as stage:
        with pytest.raises(ForbiddenError):  # it is remembered
            await asked(stage, "alice", max_tokens=1)
