"""The surfaces in a real HTTP server, over a kernel that answers as a test scripts it.

The test modules import ``sdk_socket`` from this folder.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest
import uvloop
from attrs import define, evolve, field
from lmx_lmstudio_api import plugin
from lmx_lmstudio_api.settings import LMStudioSettings
from lmx_openai_api.settings import OpenAISettings

from lmx_kernel.events import JobChanged, KernelEvent, Observer
from lmx_kernel.interfaces import Job
from lmx_kernel.runtime.settings import ModelSettings, QueueSettings
from lmx_kernel.testing.stub_kernel import MODEL, StubKernel, serving, stub_card, websocket
from lmx_kernel.types import Embeddings, LoadOverrides, ModelCard

sys.path.append(str(Path(__file__).parent))

from sdk_socket import SdkSocket

VECTORS = "acme/Vectors-0.6B"


def pytest_asyncio_loop_factories(config: object, item: object) -> dict[str, Any]:
    return {"uvloop": uvloop.new_event_loop}  # as the daemon


def card(name: str, problem: str | None = None, **fields: Any) -> ModelCard:
    """Return the card of a GGUF model that chats."""
    known = {"format": "gguf", "quantization": "Q4_K_M", "capabilities": frozenset({"chat"})}
    return evolve(stub_card(name, problem), **{**known, **fields})


@define(kw_only=True)
class Spec:
    """A download."""

    repo: str


@define
class StubJobs:
    """Downloads that go as the test says.

    :ivar steps: what changes of the job, one after the other, each after somebody looked at it.
    """

    kernel: Any
    steps: list[dict[str, Any]] = field(factory=list)
    job: Job | None = None
    cancelled: list[str] = field(factory=list)

    def kind(self, name: str) -> Any:
        assert name == "download"
        return SimpleNamespace(spec=Spec)

    async def start(self, kind: str, spec: Spec) -> Job:
        fields = {"key": spec.repo, "unit": "bytes", "spec": {"repo": spec.repo}}
        self.job = Job(id="download-1", kind=kind, created_at=0, updated_at=0, **fields)
        return self.job

    def get(self, job_id: str) -> Job:
        assert self.job is not None
        if self.steps:
            self.job = evolve(self.job, **self.steps.pop(0))
        if self.steps:
            event = JobChanged(id=job_id, kind="download", state="running", done=0, total=None)
            asyncio.get_running_loop().call_soon(self.kernel.publish, event)
        return self.job

    async def cancel(self, job_id: str) -> None:
        self.cancelled.append(job_id)


@define
class LMStudioKernel(StubKernel):
    """A stub with settings, and with models in a state.

    :ivar states: of each model that is not absent.
    :ivar loads: which models were loaded, and how.
    :ivar loading: what happens while one is loaded.
    :ivar unloads: which were unloaded.
    :ivar most_embedding: the most calls for vectors that ran at once.
    """

    models_settings: ModelSettings = field(factory=ModelSettings)
    queue: QueueSettings = field(factory=QueueSettings)
    states: dict[str, str] = field(factory=dict)
    loads: list[tuple[str, LoadOverrides]] = field(factory=list)
    loading: Callable[[str], Awaitable[None]] | None = None
    unloads: list[str] = field(factory=list)
    embedding: int = 0
    most_embedding: int = 0
    listeners: list[Observer] = field(factory=list)
    jobs: StubJobs = field(init=False)
    draining = False
    stored_answers = None  # the tests of kept chats have a daemon

    def __attrs_post_init__(self) -> None:
        self.jobs = StubJobs(self)
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
            QueueSettings: self.queue,
            LMStudioSettings: LMStudioSettings(heartbeat_s=0.05),
            OpenAISettings: OpenAISettings(),
        }[cls]

    def status(self) -> Any:
        models = [
            SimpleNamespace(
                id=name, state=state, context_length=64, parallel=2, ttl_s=9, running=0, waiting=0
            )
            for name, state in self.states.items()
        ]
        return SimpleNamespace(models=models)

    async def load(self, name: str, overrides: LoadOverrides) -> None:
        self.loads.append((name, overrides))
        if self.loading is not None:
            await self.loading(name)
            self.states[name] = "ready"

    async def unload(self, name: str) -> str:
        self.unloads.append(name)
        self.states.pop(name, None)
        return name

    async def embed(self, *asked: Any) -> Embeddings:
        self.embedding += 1
        self.most_embedding = max(self.most_embedding, self.embedding)
        await asyncio.sleep(0)
        self.embedding -= 1
        return await StubKernel.embed(self, *asked)

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


@pytest.fixture
async def connect(kernel: LMStudioKernel) -> AsyncIterator[Callable[..., Awaitable[SdkSocket]]]:
    """Connect to a namespace; the greeting is exchanged, unless a test wants to do that."""
    surfaces = plugin.lmx_api_surfaces(kernel)  # type: ignore[arg-type]
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(serving(*surfaces))

        async def connect(path: str = "/llm", *, greets: bool = True) -> SdkSocket:
            ws = await stack.enter_async_context(websocket(url, path, max_queue=None))
            socket = SdkSocket(ws)
            if greets:
                assert await socket.greet() == {"success": True}
            return socket

        yield connect


@pytest.fixture
async def llm(connect: Callable[..., Awaitable[SdkSocket]]) -> SdkSocket:
    return await connect("/llm")
