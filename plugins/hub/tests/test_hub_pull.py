"""A download through a daemon, as Ollama's client asks for it and sees it."""

from __future__ import annotations

import random

import ollama
import pytest

from lmx_kernel.testing.harness import running_daemon, write_config

PLUGINS = ("lmx_ollama_api.plugin", "lmx_hub.plugin")
WEIGHTS = random.Random(3).randbytes(1 << 20)


@pytest.fixture
async def sdk(hub, root, tmp_path):
    """The client of a daemon that knows the hub."""
    hub_section = f'[hub]\nfolder = "{root}"\nendpoint = "{hub.url}"\nreserve_bytes = 0\n'
    async with (
        running_daemon(write_config(tmp_path, PLUGINS, hub_section)) as daemon,
        ollama.AsyncClient(host=daemon.url, trust_env=False) as client,
    ):
        yield client


async def test_a_model_is_pulled(sdk, hub, root):
    hub.put("org/name", {"model-Q4_K_M.gguf": WEIGHTS, "model-Q8_0.gguf": b"other"})
    lines = [line async for line in await sdk.pull("hf.co/org/name:Q4_K_M", stream=True)]
    assert lines[0].status == "pulling manifest"
    assert lines[-1].status == "success"
    assert (lines[-2].completed, lines[-2].total) == (len(WEIGHTS), len(WEIGHTS))
    folder = root / "org" / "name"
    assert [file.name for file in folder.iterdir()] == ["model-Q4_K_M.gguf"]
    assert (folder / "model-Q4_K_M.gguf").read_bytes() == WEIGHTS
    assert (await sdk.pull("org/name:Q4_K_M")).status == "success"


async def test_a_model_that_the_hub_does_not_have(sdk):
    with pytest.raises(ollama.ResponseError) as caught:
        await sdk.pull("org/nope")
    assert caught.value.status_code == 404
    with pytest.raises(ollama.ResponseError, match="org/nope"):
        [line async for line in await sdk.pull("org/nope", stream=True)]
