"""What callers share and what they do not: turns in the queue, and what was computed for prompts.
Requests go through a real HTTP server and a kernel with workers of the fake backend.
"""

from __future__ import annotations

from contextlib import asynccontextmanager

import httpx2
import pytest
from attrs import frozen
from lmx_openai_api.settings import OpenAISettings
from lmx_openai_api.surface import OpenAISurface

from lmx_kernel.access.door import Door
from lmx_kernel.access.keys import KeyFile, Keyring
from lmx_kernel.events import WorkerCrashed
from lmx_kernel.http.app import build_app
from lmx_kernel.http.error_rendering import ErrorRenderer
from lmx_kernel.http.health import Health
from lmx_kernel.http.server import HttpServer
from lmx_kernel.http.settings import ServerSettings
from lmx_kernel.http.shell import Shell
from lmx_kernel.http.surface_table import SurfaceTable
from lmx_kernel.testing.fake_model import FakeModel
from lmx_kernel.testing.harness import RunningKernel, ask, running_kernel
from lmx_kernel.types import Priority, PromptProgress, Terms

SHARING = FakeModel(shares_prefixes=True)
SECRET = "the code of the safe is 4821, and nobody else must learn of it"


@frozen
class Site:
    """A kernel behind HTTP. ``keys`` are the tokens by the names of their keys."""

    stage: RunningKernel
    http: httpx2.AsyncClient
    keys: dict[str, str]

    async def complete(self, key: str = "", **fields):
        """Return the usage of a completion for the key of this name."""
        headers = {"authorization": f"Bearer {self.keys[key]}"} if key else {}
        body = {"model": "m", "prompt": SECRET, "max_tokens": 3, **fields}
        response = await self.http.post("/v1/completions", json=body, headers=headers)
        assert response.status_code == 200, response.text
        return response.json()["usage"]

    @asynccontextmanager
    async def running(self, key: str = "", **fields):
        """Hold a completion open that has begun."""
        headers = {"authorization": f"Bearer {self.keys[key]}"} if key else {}
        body = {"model": "m", "prompt": SECRET, "stream": True, **fields}
        posting = self.http.stream("POST", "/v1/completions", json=body, headers=headers)
        async with posting as response:
            lines = response.aiter_lines()
            while not (await anext(lines)).startswith("data: "):
                pass
            yield

    async def cached(self, key: str = ""):
        """Return how much of a prompt was not computed, as the client is told."""
        return (await self.complete(key))["prompt_tokens_details"]["cached_tokens"]


@asynccontextmanager
async def site(folder, model, *names, config=""):
    """Hold a server open whose keys have these names."""
    file = KeyFile(folder)
    keys = {name: file.add(name, ("inference",)) for name in names}
    keyring = Keyring(file)
    async with running_kernel(folder, {"m": model}, config) as stage:
        surfaces = SurfaceTable([OpenAISurface(stage.kernel, OpenAISettings())])
        health = Health(name="x", version="0", docs="", is_ready=lambda: True, status=dict)
        door = Door(True, keyring, surfaces.answering, lambda _: None)
        settings = ServerSettings(port=0, drain_s=0)
        app = build_app(surfaces.surfaces, health)
        server = HttpServer(settings, Shell(app, settings, ErrorRenderer(surfaces), door.admit))
        await server.start()
        url = f"http://127.0.0.1:{server.port}"
        try:
            async with httpx2.AsyncClient(base_url=url, timeout=60) as http:
                yield Site(stage, http, {**keys, "local": keyring.local_token})
        finally:
            await server.stop()


# --- what was computed for a prompt


async def test_a_key_is_told_of_its_own_prompts_only(tmp_path):
    async with site(tmp_path, SHARING, "ann", "bob") as at:
        assert await at.cached("ann") == 0
        assert await at.cached("bob") == 0
        assert await at.cached("local") == 0
        assert await at.cached("ann") == len(SECRET) - 1


async def test_a_prompt_that_still_runs_serves_its_own_key_only(tmp_path):
    slow = FakeModel(shares_prefixes=True, tokens_per_s=50)
    async with site(tmp_path, slow, "ann", "bob") as at, at.running("ann"):
        assert await at.cached("bob") == 0
        assert await at.cached("ann") == len(SECRET) - 1


async def test_the_candidates_of_one_request_share_their_prompt(tmp_path):
    async with running_kernel(tmp_path, {"m": SHARING}) as stage:
        request = ask("m", SECRET, max_tokens=2, candidates=3, cache_space="ann")
        with await stage.kernel.generate(request) as answer:
            reports = [event async for event in answer if isinstance(event, PromptProgress)]
    cached = {report.candidate: report.cached for report in reports}
    assert cached == {0: 0, 1: answer.prompt_tokens - 1, 2: answer.prompt_tokens - 1}


@pytest.mark.parametrize("names", [("ann", "bob"), ()])
async def test_one_household_shares_prompts(tmp_path, names):
    """All keys, if the config says so; and everybody where there are no keys."""
    config = "[server]\nshare_prefixes = true\n" if names else ""
    async with site(tmp_path, SHARING, *names, config=config) as at:
        assert await at.cached(*names[:1]) == 0
        assert await at.cached(*names[1:]) == len(SECRET) - 1
        assert await at.cached("local") == len(SECRET) - 1


async def test_an_answer_that_is_resumed_after_a_crash_keeps_its_space(tmp_path):
    model = FakeModel(shares_prefixes=True, crash_at=5)
    async with running_kernel(tmp_path, {"m": model}) as stage:

        async def cached(space):
            request = ask("m", SECRET, max_tokens=10, cache_space=space)
            with await stage.kernel.generate(request) as answer:
                async for _ in answer:
                    pass
            return answer.usage().cached_tokens

        assert await cached("ann") == 0
        assert len(stage.seen(WorkerCrashed)) == 1
        assert await cached("bob") == 0
        assert await cached("ann") > len(SECRET)


# --- turns in the queue


async def test_a_key_is_served_on_its_terms_and_its_usage_is_told(tmp_path):
    async with site(tmp_path, FakeModel(), "ann", "bob") as at:
        terms = Terms(priority=Priority.LOW, tokens_per_minute=10)
        KeyFile(tmp_path).change("ann", lambda _: terms)
        await at.complete("bob")
        usage = await at.complete("ann", max_tokens=20)
        request = {"model": "m", "prompt": SECRET}
        headers = {"authorization": f"Bearer {at.keys['ann']}"}
        refused = await at.http.post("/v1/completions", json=request, headers=headers)
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) > 0
        assert refused.json()["error"]["code"] == "rate_limited"
        ann, bob = sorted(at.stage.kernel.status().keys, key=lambda key: key.name)
        assert (ann.name, ann.open, bob.requests) == ("ann", 0, 1)
        assert bob.prompt_tokens == usage["prompt_tokens"]
        assert bob.completion_tokens == 3


@pytest.mark.parametrize("keys", [("ann", "bob"), ("", "")])
async def test_a_short_request_does_not_wait_for_512_sequences_of_another_caller(tmp_path, keys):
    """Without keys, each HTTP request is a caller."""
    names = [key for key in keys if key]
    async with site(tmp_path, FakeModel(tokens_per_s=100), *names) as at:
        prompts = [f"question {n}" for n in range(32)]
        async with at.running(keys[0], prompt=prompts, n=16, max_tokens=20):
            await at.complete(keys[1], max_tokens=5)
            assert at.stage.instance("m").requests.waiting >= 30, "of 32 prompts"
