"""Logits processors of plugins, named by requests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lmx_kernel.errors import InvalidRequestError
from lmx_kernel.testing.fake_model import FakeModel
from lmx_kernel.testing.harness import ask, running_kernel
from lmx_kernel.types import TextDelta

EXAMPLE = Path(__file__).parents[2] / "examples" / "lmx-plugin-no-repeat"


@pytest.fixture(autouse=True)
def example(tmp_path, monkeypatch):
    """The example, installed as far as a worker can see."""
    site = tmp_path / "site"
    info = site / "lmx_plugin_no_repeat-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: no-repeat\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[lmx.logits]\nno_repeat_ngram = lmx_no_repeat:no_repeat_ngram\n"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(site), str(EXAMPLE)]))


async def text_of(stage, model, **processors):
    request = ask(model, max_tokens=12, logits_processors=processors)
    with await stage.kernel.generate(request) as answer:
        return "".join([one.text async for one in answer if isinstance(one, TextDelta)])


async def test_a_request_names_a_processor_and_a_crash_changes_nothing(tmp_path):
    says = "abcabcabcabc"
    models = {"steady": FakeModel(says=says), "shaky": FakeModel(says=says, crash_at=7)}
    async with running_kernel(tmp_path, models) as stage:
        assert await text_of(stage, "steady") == "abcabcabcabc"
        # what is barred leaves the fake engine its first token
        expected = await text_of(stage, "steady", no_repeat_ngram={"size": 3})
        assert expected.startswith("abcab\0")
        assert await text_of(stage, "shaky", no_repeat_ngram={"size": 3}) == expected
        for name, options, why in (
            ("no_repeat_ngram", {"size": 1}, "takes a size of 2"),
            ("no_such", {}, "there is none called no_such"),
        ):
            with pytest.raises(InvalidRequestError, match=why) as caught:
                await text_of(stage, "steady", **{name: options})
            assert caught.value.param == f"logits_processors.{name}"
