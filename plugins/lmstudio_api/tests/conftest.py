"""The surfaces in a real HTTP server, over a kernel that answers as a test scripts it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest
import uvloop
from attrs import define, evolve, field
from lmx_lmstudio_api import plugin
from lmx_lmstudio_api.settings import LMStudioSettings

from lmx_kernel.events import KernelEvent, Observer
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
    listeners: list[Observer] = field(factory=list)
    stored_answers = None  # the tests of kept chats have a daemon

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
            SimpleNamespace(id=name, state=state, context_length=64, parallel=2, ttl_s=None)
            for name, state in self.states.items()
        ]
        return SimpleNamespace(models=models)

    async def load(self, name: str, overrides: LoadOverrides) -> None:
        self.loads.append((name, overrides))

    @contextmanager
    def listen(self, listener: Observer) -> Iterator[None]:
        self.listeners.append(listener)
        yield
        self.listeners.remove(listener)

    def publish(self, *events: KernelEvent) -> None:
        """Tell all listeners."""
        for event in events:
            for listener in self.listeners:
                listener(event)


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

    async def ask(self, **fields: Any) -> httpx2.Response:
        """Ask ``/api/v1/chat``; nothing is kept."""
        return await self.post("/api/v1/chat", **{"input": "Hi", "store": False, **fields})

    async def events(self, **fields: Any) -> list[dict[str, Any]]:
        """Return the events of a stream of ``/api/v1/chat``."""
        answer = await self.ask(stream=True, **fields)
        assert answer.status_code == 200, answer.text
        return split_events(answer.text)


def split_events(text: str) -> list[dict[str, Any]]:
    """Return the events of a stream; each has its type as its name too."""
    assert text.endswith("\n\n")
    found = []
    for frame in text.split("\n\n")[:-1]:
        if frame == ": keep-alive":
            continue
        name, data = frame.split("\n")
        found.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {found[-1]['type']}"
    return found


@pytest.fixture
def kernel() -> LMStudioKernel:
    return LMStudioKernel()


@pytest.fixture
async def api(kernel: LMStudioKernel) -> AsyncIterator[Api]:
    surfaces = plugin.lmx_api_surfaces(kernel)  # type: ignore[arg-type]
    async with serving(*surfaces) as url, httpx2.AsyncClient(base_url=url, timeout=10) as http:
        yield Api(kernel, http)
