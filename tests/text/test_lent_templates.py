"""Chat templates that plugins bring for architectures whose files have none."""

from __future__ import annotations

import pytest

from lmx_kernel.errors import InvalidRequestError
from lmx_kernel.testing.fake_model import FakeModel
from lmx_kernel.testing.harness import ask, running_kernel

LENT = "Q{{ messages[0].content }}A"
MODELS = {"bare": FakeModel(template=None), "own": FakeModel(template="own: {{ messages[0] }}")}


@pytest.fixture
def lend(tmp_path, monkeypatch):
    """Return a function that installs a package with a template for the fake architecture."""

    def install(template, name="lender"):
        info = tmp_path / "site" / f"{name}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[lmx.templates]\nfake = lmx_{name}:TEMPLATE\n")
        (info.parent / f"lmx_{name}.py").write_text(template)

    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    return install


async def test_a_model_without_a_template_chats_by_that_of_a_plugin(tmp_path, lend):
    lend("raise RuntimeError('broken')", name="a_broken_one")
    lend(f"TEMPLATE = {LENT!r}")
    async with running_kernel(tmp_path, MODELS) as stage:
        assert await stage.kernel.count_tokens(ask("bare", "hello")) == len("QhelloA")
        assert await stage.kernel.count_tokens(ask("own", "hello")) > len("QhelloA")
        assert stage.kernel.find("bare").capabilities == {"completion", "chat"}


async def test_without_a_plugin_it_says_what_it_can_do(tmp_path):
    async with running_kernel(tmp_path, MODELS) as stage:
        assert stage.kernel.find("bare").capabilities == {"completion"}
        with pytest.raises(InvalidRequestError, match="no chat template"):
            await stage.kernel.count_tokens(ask("bare"))
