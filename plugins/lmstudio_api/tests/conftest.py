"""The surfaces in a real HTTP server, over a kernel that answers as a test scripts it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest
import uvloop
from attrs import define, evolve, field
from lmx_lmstudio_api import plugin
from lmx_lmstudio_api.settings import LMStudioSettings

from lmx_kernel.runtime.settings import ModelSettings
from lmx_kernel.testing.stub_kernel import MODEL, StubKernel, serving, stub_card
from lmx_kernel.types import LoadOverrides, ModelCard

VECTORS = "acme/Vectors-0.6B"


def pytest_asyncio_loop_factories(config: object, item: object) -> dict[str, Any]:
    return {"uvloop": uvloop.new_event_loop}  # as the daemon


def card(name: str, problem: str | None = None, **fields: Any) -> ModelCard:
    """Return the card of a GGUF model that chats."""
    known = {"format": "gguf", "quantization": "Q4_K_M", "capabilities": frozenset({"chat"})}
    return evolve(stub_card(name, problem), **{**known, **fields})


@define
class LMStudioKernel(StubKernel):
    """A stub with settings, and with models in a state.

    :ivar states: of each model that is not absent.
    :ivar loads: which models were loaded, and how.
    """

    models_settings: ModelSettings = field(factory=ModelSettings)
    states: dict[str, str] = field(factory=dict)
    loads: list[tuple[str, LoadOverrides]] = field(factory=list)

    def __attrs_post_init__(self) -> None:
        self.cards = [
            card(MODEL),
            card(VECTORS, capabilities=frozenset({"embedding"})),
            card("acme/apple", format="mlx", quantization="4bit", capabilities=frozenset()),
            card("acme/ranker", format="onnx"),
            card("broken", "its file is cut off"),
        ]

    def settings(self, cls: type) -> Any:
        return {
            ModelSettings: self.models_settings,
            LMStudioSettings: LMStudioSettings(heartbeat_s=0.05),
        }[cls]

    def status(self) -> Any:
        models = [
            SimpleNamespace(id=name, state=state, context_length=64, ttl_s=None)
            for name, state in self.states.items()
        ]
        return SimpleNamespace(models=models)

    async def load(self, name: str, overrides: LoadOverrides) -> None:
        self.loads.append((name, overrides))


@define
class Api:
    """What a test asks, and how."""

    kernel: LMStudioKernel
    http: httpx2.AsyncClient

    async def get(self, path: str) -> httpx2.Response:
        return await self.http.get(path)

    async def post(self, path: str, **fields: Any) -> httpx2.Response:
        body = {"model": MODEL, **fields}
        return await self.http.post(path, content=json.dumps(body).encode())

    async def chat(self, **fields: Any) -> httpx2.Response:
        hi = [{"role": "user", "content": "Hi"}]
        return await self.post("/api/v0/chat/completions", messages=hi, **fields)


@pytest.fixture
def kernel() -> LMStudioKernel:
    return LMStudioKernel()


@pytest.fixture
async def api(kernel: LMStudioKernel) -> AsyncIterator[Api]:
    surfaces = plugin.lmx_api_surfaces(kernel)  # type: ignore[arg-type]
    async with serving(*surfaces) as url, httpx2.AsyncClient(base_url=url, timeout=10) as http:
        yield Api(kernel, http)
