"""A key's terms hold in each dialect: what it generates, embeds or counts is of the key's priority
and weight, and what is past its tokens gets a 429 in the dialect's own shape.
"""

from __future__ import annotations

from importlib import import_module

import httpx2
import pytest

from lmx_kernel.access.door import Door
from lmx_kernel.access.keys import KeyFile, Keyring
from lmx_kernel.errors import RateLimitedError
from lmx_kernel.http.app import build_app
from lmx_kernel.http.error_rendering import ErrorRenderer
from lmx_kernel.http.server import HttpServer
from lmx_kernel.http.settings import ServerSettings
from lmx_kernel.http.shell import Shell
from lmx_kernel.http.surface_table import SurfaceTable
from lmx_kernel.testing.fake_model import FakeModel
from lmx_kernel.testing.harness import running_kernel
from lmx_kernel.testing.stub_kernel import make_health
from lmx_kernel.types import Priority, Terms

PLUGINS = tuple(
    f"lmx_{name}.plugin"
    for name in ("openai_api", "anthropic_api", "responses_api", "lmstudio_api", "ollama_api")
)
MODELS = {"m": FakeModel(), "v": FakeModel(embeds=True)}
HI = [{"role": "user", "content": "Hi"}]
CHAT = {"model": "m", "messages": HI, "max_tokens": 9}
PROMPT = {"model": "m", "prompt": "Hi"}
VECTOR = {"model": "v", "input": "Hi"}
RESPONSE = {"model": "m", "input": "Hi"}
GENERATING = [
    ("/v1/chat/completions", CHAT),
    ("/v1/completions", PROMPT),
    ("/v1/embeddings", VECTOR),
    ("/v1/messages", CHAT),
    ("/v1/messages/count_tokens", CHAT),
    ("/v1/responses", RESPONSE),
    ("/v1/responses", {**RESPONSE, "background": True}),
    ("/v1/responses/input_tokens", RESPONSE),
    ("/api/v0/chat/completions", CHAT),
    ("/api/v0/completions", PROMPT),
    ("/api/v0/embeddings", VECTOR),
    ("/api/v1/chat", RESPONSE),
    ("/api/chat", {"model": "m", "messages": HI}),
    ("/api/generate", PROMPT),
    ("/api/embed", VECTOR),
    ("/api/embeddings", {"model": "v", "prompt": "Hi"}),
]
TERMS = {
    "slow": Terms(priority=Priority.LOW, weight=3, max_running=1),
    "plain": Terms(),
    "fast": Terms(priority=Priority.HIGH, tokens_per_minute=1000),
}


@pytest.fixture
async def post(tmp_path, monkeypatch):
    """Return a function that posts as a key, and returns what reached the models, and the answer.
    No model is loaded: each request is refused as one past the key's tokens.
    """
    file = KeyFile(tmp_path)
    keys = {name: file.add(name, ("inference",), terms) for name, terms in TERMS.items()}
    async with running_kernel(tmp_path, MODELS, plugins=PLUGINS) as stage:
        seen = []

        def refuse(_, request):
            seen.append(request)
            raise RateLimitedError("enough for now", retry_after_s=7)

        monkeypatch.setattr(stage.assembly.lifecycle, "submit", refuse)
        hooks = [import_module(name).lmx_api_surfaces for name in PLUGINS]
        table = SurfaceTable([surface for hook in hooks for surface in hook(stage.kernel)])
        door = Door(True, Keyring(file), table.answering, lambda _: None)
        settings = ServerSettings(port=0, drain_s=0)
        app = build_app(table.surfaces, make_health())
        server = HttpServer(settings, Shell(app, settings, ErrorRenderer(table), door.admit))
        await server.start()

        async def post(path, body, key):
            headers = {"authorization": f"Bearer {keys[key]}"}
            answer = await http.post(path, json=body, headers=headers)
            return seen, answer

        url = f"http://127.0.0.1:{server.port}"
        async with httpx2.AsyncClient(base_url=url, timeout=60) as http:
            yield post
        await server.stop()


async def test_every_dialect_has_the_terms_of_its_key(post):
    for path, body in GENERATING:
        for key, terms in TERMS.items():
            seen, answer = await post(path, body, key)
            (request,) = seen
            seen.clear()
            where = f"{path} as {key}"
            assert (request.caller, request.terms) == (key, terms), where
            assert request.priority is terms.priority, where
            assert answer.status_code == 429, where
            assert answer.headers["retry-after"] == "7", where
            assert "enough for now" in answer.text, where


@pytest.mark.parametrize(
    ("tier", "got"),
    [("flex", Priority.LOW), ("auto", Priority.NORMAL), ("priority", Priority.HIGH)],
)
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", CHAT),
        ("/v1/responses", RESPONSE),
        ("/api/v0/chat/completions", CHAT),
    ],
)
async def test_a_request_lowers_itself_and_raises_itself_up_to_its_key(post, path, body, tier, got):
    for key, terms in TERMS.items():
        seen, _ = await post(path, {**body, "service_tier": tier}, key)
        assert seen.pop().priority is min(got, terms.priority, key=lambda one: one.rank), key


@pytest.mark.parametrize(
    ("tier", "got"), [("auto", Priority.HIGH), ("standard_only", Priority.NORMAL)]
)
async def test_a_message_raises_itself_up_to_its_key(post, tier, got):
    for key, terms in TERMS.items():
        seen, _ = await post("/v1/messages", {**CHAT, "service_tier": tier}, key)
        assert seen.pop().priority is min(got, terms.priority, key=lambda one: one.rank), key
