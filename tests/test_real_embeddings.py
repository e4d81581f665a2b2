"""The whole server on a real embedding model, through the unmodified SDK."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import httpx2 as httpx
import pytest
from openai import AsyncOpenAI, BadRequestError

from lmx_kernel.testing.harness import running_daemon

MODEL = "all-minilm-l6-v2"
FILE = Path(MODEL) / "all-MiniLM-L6-v2.F16.gguf"
TEXTS = ["A cat sleeps.", "A feline is napping.", "The central bank raised its rates."]


@pytest.fixture
def config(tmp_path):
    """A config that sees the models that `make test` puts in place."""
    home = Path(os.environ.get("LMX_HOME") or "~/.lmx").expanduser()
    if not (home / "models" / FILE).exists():
        pytest.fail("the embedding model is missing: run `python scripts/embedding_model.py`")
    path = tmp_path / "config.toml"
    path.write_text(
        f"[model_folders]\nhome = false\nhugging_face = false\nlm_studio = false\n"
        f'paths = ["{home / "models"}"]\n'
    )
    return path


def sdk(daemon):
    return AsyncOpenAI(base_url=f"{daemon.url}/v1", api_key="any", max_retries=0)


def product(one, other):
    return sum(a * b for a, b in zip(one, other, strict=True))


async def busy_worker(daemon):
    """Return the process id of the worker, once it works on something."""
    async with httpx.AsyncClient(base_url=daemon.url, timeout=60) as client:
        while True:
            [model] = (await client.get("/health/status")).json()["models"]
            if model["running"]:
                return model["pid"]


async def test_the_sdk_gets_vectors_that_mean_something(config):
    async with running_daemon(config) as daemon, sdk(daemon) as client:
        reply = await client.embeddings.create(model=MODEL, input=TEXTS)
        cat, feline, bank = (one.embedding for one in reply.data)
        assert len(cat) == 384
        assert product(cat, cat) == pytest.approx(1, abs=1e-4)
        assert product(cat, feline) > 0.6 > 0.2 > product(cat, bank)
        assert reply.usage.prompt_tokens == 24
        short = await client.embeddings.create(
            model=MODEL, input=TEXTS[0], dimensions=64, encoding_format="float"
        )
        assert len(short.data[0].embedding) == 64
        tokens = await client.embeddings.create(model=MODEL, input=[[101, 102], [101, 2088, 102]])
        assert tokens.usage.total_tokens == 5
        with pytest.raises(BadRequestError, match="makes embeddings only"):
            await client.chat.completions.create(
                model=MODEL, messages=[{"role": "user", "content": "hi"}]
            )
        with pytest.raises(BadRequestError, match="602 tokens") as caught:
            await client.embeddings.create(model=MODEL, input="word " * 600)
        assert caught.value.code == "context_length_exceeded"


async def test_a_killed_worker_costs_no_request(config):
    async with running_daemon(config) as daemon, sdk(daemon) as client:
        before = await client.embeddings.create(model=MODEL, input=TEXTS)
        many = TEXTS + [f"{text} {number}" for text in TEXTS for number in range(100)]
        asked = [
            asyncio.ensure_future(client.embeddings.create(model=MODEL, input=many))
            for _ in range(3)
        ]
        victim = await busy_worker(daemon)
        os.kill(victim, signal.SIGKILL)
        for reply in await asyncio.gather(*asked):
            for one, other in zip(before.data, reply.data[:3], strict=True):
                assert product(one.embedding, other.embedding) > 0.9999
        async with httpx.AsyncClient(base_url=daemon.url, timeout=60) as plain:
            [model] = (await plain.get("/health/status")).json()["models"]
        assert model["pid"] != victim
