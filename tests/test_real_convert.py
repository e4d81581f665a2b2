"""A model is converted by a running daemon, and answers as the one that it was made of."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import httpx2 as httpx
import pytest

from lmx_kernel.testing.harness import running_daemon

MODEL = "smollm2-135m-instruct"


@pytest.fixture
def config(tmp_path):
    """A config that sees the demo model, and what is put into a home of its own."""
    home = Path(os.environ.get("LMX_HOME") or "~/.lmx").expanduser()
    if not (home / "models" / MODEL).exists():
        pytest.fail("the demo model is missing: run `make demo`")
    path = tmp_path / "config.toml"
    path.write_text(
        f'[model_folders]\nhugging_face = false\nlm_studio = false\npaths = ["{home / "models"}"]\n'
    )
    return path


async def ended(http, job):
    while job["state"] in ("queued", "running"):
        await asyncio.sleep(0.05)
        job = (await http.get(f"/admin/jobs/{job['id']}")).json()
    return job


async def answer(http, model):
    reply = await http.post(
        "/v1/chat/completions",
        json={
            "model": model,
            "messages": [{"role": "user", "content": "Name three colors."}],
            "temperature": 0,
            "max_tokens": 12,
        },
    )
    return reply.json()["choices"][0]["message"]["content"]


@pytest.mark.full
async def test_a_file_is_made_into_a_folder_that_answers_alike(config):
    async with (
        running_daemon(config) as daemon,
        httpx.AsyncClient(base_url=daemon.url, timeout=60) as http,
    ):
        order = {"model": MODEL, "name": "me/smol"}
        started = await http.post("/admin/models/convert", json=order)
        assert started.status_code == 202
        again = await http.post("/admin/models/convert", json=order)
        assert again.json()["id"] == started.json()["id"]
        job = await ended(http, started.json())
        assert (job["state"], job["result"]["model"]) == ("done", "me/smol")
        assert job["done"] == job["total"] > 0
        assert await answer(http, "me/smol") == await answer(http, MODEL)
        same = (await http.post("/admin/models/convert", json=order)).json()
        assert same["id"] == job["id"], "it is there already"
        os.utime(config.parent / "models" / "me" / "smol")  # somebody changed it
        taken = (await http.post("/admin/models/convert", json=order)).json()
        assert (await ended(http, taken))["error"]["code"] == "conflict"
        refused = await http.post("/admin/models/convert", json=order | {"bits": 5})
        assert refused.status_code == 400
        missing = await http.post("/admin/models/convert", json={"model": "nope"})
        assert missing.status_code == 404
