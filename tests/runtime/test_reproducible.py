"""What is promised of answers, and the fingerprint that stands for what they depend on."""

from __future__ import annotations

import pytest

from lmx_kernel.errors import InvalidRequestError
from lmx_kernel.events import ModelLoaded
from lmx_kernel.testing.fake_model import FakeModel
from lmx_kernel.testing.harness import ask, running_kernel
from lmx_kernel.types import Admitted, LoadOverrides

MODEL = FakeModel(answer_tokens=2)
CANNOT = FakeModel(answer_tokens=2, irreproducible="this device adds in any order")
CONFIG = '[[model]]\nmatch = "kept*"\nreproducible = true\nparallel = 3\ncontext_length = 64\n'


async def fingerprint(kernel, model, **fields):
    """Return the fingerprint of a whole answer."""
    with await kernel.generate(ask(model, **fields)) as answer:
        events = [event async for event in answer]
    assert isinstance(events[0], Admitted)
    assert events[0].fingerprint == answer.fingerprint
    return answer.fingerprint


async def test_a_request_that_must_be_reproducible_is_refused_before_anything_is_loaded(tmp_path):
    async with running_kernel(tmp_path, {"plain": MODEL}, CONFIG) as stage:
        with pytest.raises(InvalidRequestError, match="reproducible = true") as refused:
            await stage.kernel.generate(ask("plain", reproducible=True))
        assert refused.value.param == "lmx_reproducible"
        assert not stage.seen(ModelLoaded)
        assert not (await fingerprint(stage.kernel, "plain")).endswith("reproducible")


async def test_what_cannot_be_promised_is_said_in_fingerprint_and_refusal(tmp_path):
    scripts = {"kept": MODEL, "kept-not": CANNOT}
    async with running_kernel(tmp_path, scripts, CONFIG) as stage:
        promised = await fingerprint(stage.kernel, "kept", reproducible=True)
        assert promised.endswith("_reproducible")
        assert not promised.endswith("_not_reproducible")
        assert (await fingerprint(stage.kernel, "kept-not")).endswith("_not_reproducible")
        with pytest.raises(InvalidRequestError, match="adds in any order") as refused:
            await fingerprint(stage.kernel, "kept-not", reproducible=True)
        assert refused.value.param == "lmx_reproducible"


async def test_a_fingerprint_stays_until_what_it_stands_for_changes(tmp_path):
    async with running_kernel(tmp_path, {"a": MODEL, "b": MODEL}, "") as stage:
        first = await fingerprint(stage.kernel, "a")
        assert first.startswith("fp_")
        await stage.kernel.unload("a")
        assert await fingerprint(stage.kernel, "a") == first
        assert await fingerprint(stage.kernel, "b") == first  # the same files
        await stage.kernel.model_settings.change("a", {"format": "plain"})
        await stage.kernel.unload("a")
        assert await fingerprint(stage.kernel, "a") != first
    other = FakeModel(answer_tokens=2, says="x")
    (tmp_path / "other").mkdir()
    async with running_kernel(tmp_path / "other", {"a": other}, "") as stage:
        assert await fingerprint(stage.kernel, "a") != first


async def test_every_sequence_has_room_for_a_whole_context(tmp_path):
    async with running_kernel(tmp_path, {"kept": MODEL}, CONFIG) as stage:
        admission = await stage.kernel.admission("kept", LoadOverrides())
        assert admission.options.cache_tokens == 3 * 64
