"""A daemon with every installed plugin and a fake model, and its document."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import pytest_asyncio

from lmx_kernel.interfaces import ApiSurface
from lmx_kernel.kernel.assembly import assemble
from lmx_kernel.kernel.boot import boot
from lmx_kernel.testing.fake_model import FakeModel
from lmx_kernel.testing.harness import running_daemon, write_fake_models

MODEL = "m"
CONFIG = """
[plugins]
modules = ["lmx_kernel.testing.fake"]
timeout_s = 30
[fake]
folder = "{folder}"
[model_folders]
home = false
hugging_face = false
lm_studio = false
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A config with all plugins that are installed, in a home of its own."""
    folder = tmp_path_factory.mktemp("home")
    thinker = FakeModel(says="<think>What?</think>That.")
    write_fake_models(folder, {MODEL: FakeModel(answer_tokens=8, sour="lemon"), "thinker": thinker})
    path = folder / "config.toml"
    path.write_text(CONFIG.format(folder=folder))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LMX_HOME", str(folder))
        patch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
        yield path


@pytest.fixture(scope="module")
def surfaces(config: Path) -> list[ApiSurface]:
    """The surfaces of that daemon, in this process."""
    booted = boot(config)
    return booted.plugins.api_surfaces(assemble(booted).kernel)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def url(config: Path) -> AsyncIterator[str]:
    """Where the daemon is."""
    async with running_daemon(config) as daemon:
        yield daemon.url


@pytest.fixture
async def http(url: str) -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(base_url=url, timeout=30) as client:
        yield client


@pytest.fixture
async def document(http: httpx2.AsyncClient) -> dict[str, Any]:
    return (await http.get("/openapi.json")).json()
