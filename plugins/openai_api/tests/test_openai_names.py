"""Names in the list of models, and paths without ``/v1``."""

from __future__ import annotations

import httpx2
import pytest

from lmx_kernel.testing.fake_model import FakeModel
from lmx_kernel.testing.harness import running_daemon, write_config, write_fake_models

CONFIG = """
[[model]]
match = "m"
aliases = ["small"]
profiles.fast = { max_tokens = 2 }
[[model]]
match = "n"
hidden = true
"""
BODY = {"messages": [{"role": "user", "content": "Hi"}]}
PATHS = [
    ("GET", "/models", None),
    ("GET", "/models/m", None),
    ("POST", "/chat/completions", {"model": "m", "max_tokens": 1, **BODY}),
    ("POST", "/chat/completions/count_tokens", {"model": "m", **BODY}),
    ("POST", "/completions", {"model": "m", "max_tokens": 1, "prompt": "x"}),
    ("POST", "/embeddings", {"model": "e", "input": "x"}),
]


@pytest.fixture
def serve(tmp_path):
    scripts = {"m": FakeModel(), "n": FakeModel(), "e": FakeModel(embeds=True)}
    write_fake_models(tmp_path, scripts)

    def hold(config):
        return running_daemon(write_config(tmp_path, ("lmx_openai_api.plugin",), config))

    return hold


async def test_profiles_and_aliases_are_listed_and_answer_and_hidden_models_only_answer(serve):
    config = f'{CONFIG}[routing]\nunknown_model = "m"\n'
    async with serve(config) as daemon, httpx2.AsyncClient(base_url=daemon.url) as http:
        listed = (await http.get("/v1/models")).json()["data"]
        assert [one["id"] for one in listed] == ["e", "m", "small", "m:fast"]
        assert (await http.get("/v1/models/m:fast")).json()["id"] == "m:fast"
        asked = ("m:fast", "small:fast", "n", "gpt-4o")
        answers = [
            await http.post("/v1/chat/completions", json={"model": name, "max_tokens": 9, **BODY})
            for name in asked
        ]
        assert [one.headers["x-lmx-model"] for one in answers] == ["m", "m", "n", "m"]
        short = await http.post("/v1/chat/completions", json={"model": "m:fast", **BODY})
        assert short.json()["usage"]["completion_tokens"] == 2


@pytest.mark.parametrize("is_on", [True, False])
async def test_paths_without_v1_answer_if_the_config_says_so(serve, is_on):
    config = f"[openai_api]\nbare_paths = {str(is_on).lower()}\n"
    async with serve(config) as daemon, httpx2.AsyncClient(base_url=daemon.url) as http:
        for method, path, body in PATHS:
            answer = await http.request(method, path, json=body)
            assert answer.status_code == (200 if is_on else 404), path
            assert (await http.request(method, f"/v1{path}", json=body)).status_code == 200
        wrong = await http.post("/chat/completions", json={"model": "m"})
        assert wrong.status_code == (400 if is_on else 404)
        if is_on:
            assert wrong.json()["error"]["param"] == "messages"
