"""The surfaces in a real HTTP server, over a kernel that answers as a test scripts it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import httpx2
import ollama
import pytest
import uvloop
from attrs import define, evolve, field
from lmx_ollama_api.settings import OllamaSettings
from lmx_ollama_api.surface import DeleteSurface, OllamaSurface, PullSurface

from lmx_kernel.events import JobChanged
from lmx_kernel.interfaces import Job, JobError, JobState
from lmx_kernel.interfaces.model_settings import ModelSettingsView
from lmx_kernel.runtime.settings import ModelSettings
from lmx_kernel.testing.stub_kernel import MODEL, StubKernel, serving, stub_card
from lmx_kernel.types import LoadOverrides, ModelCard, SettingValue


def pytest_asyncio_loop_factories(config: object, item: object) -> dict[str, Any]:
    return {"uvloop": uvloop.new_event_loop}  # as the daemon


@define(kw_only=True)
class Spec:
    """A download."""

    repo: str
    quantization: str | None = None


@define
class StubJobs:
    """Downloads that go as the test says.

    :ivar steps: what changes of the job, one after the other, each after somebody looked at it.
    """

    kernel: Any
    steps: list[dict[str, Any]] = field(factory=list)
    job: Job | None = None

    def kind(self, name: str) -> Any:
        assert name == "download"
        return SimpleNamespace(spec=Spec)

    async def start(self, kind: str, spec: Spec) -> Job:
        self.job = Job(
            id="download-1",
            kind=kind,
            key=f"{spec.repo}:{spec.quantization}",
            unit="bytes",
            spec={"repo": spec.repo, "quantization": spec.quantization},
            created_at=0,
            updated_at=0,
        )
        return self.job

    def get(self, job_id: str) -> Job:
        assert self.job is not None
        if self.steps:
            self.job = evolve(self.job, **self.steps.pop(0))
        if self.steps:
            event = JobChanged(id=job_id, kind="download", state="running", done=0, total=None)
            asyncio.get_running_loop().call_soon(self.kernel.publish, event)
        return self.job


@define
class OllamaKernel(StubKernel):
    """A kernel that also loads models.

    :ivar statuses: of the models that are loaded.
    :ivar calls: what was asked of models: load, unload, keep, delete.
    """

    settings_of_models: ModelSettings = field(factory=ModelSettings)
    statuses: list[Any] = field(factory=list)
    calls: list[tuple[Any, ...]] = field(factory=list)
    draining: bool = False
    jobs: StubJobs = field(init=False)
    listeners: list[Any] = field(factory=list)

    def __attrs_post_init__(self) -> None:
        self.jobs = StubJobs(self)

    def settings(self, cls: type[Any]) -> Any:
        return self.settings_of_models if cls is ModelSettings else cls()

    def show(self, name: str) -> ModelSettingsView:
        """Return the context length that a load would have."""
        value = SettingValue(self.settings_of_models.context_length, "LMX")
        return ModelSettingsView(model=name, settings={"context_length": value}, saved={})

    def status(self) -> Any:
        return SimpleNamespace(models=self.statuses)

    async def load(self, name: str, overrides: LoadOverrides) -> None:
        self.calls.append(("load", self.find(name).id, overrides.ttl_s))

    async def unload(self, name: str) -> None:
        self.calls.append(("unload", self.find(name).id))

    def keep(self, model: str, ttl_s: float | None) -> None:
        self.calls.append(("keep", model, ttl_s))

    async def delete(self, name: str) -> ModelCard:
        self.calls.append(("delete", self.find(name).id))
        return self.find(name)

    def publish(self, event: object) -> None:
        for listener in list(self.listeners):
            listener(event)

    @contextmanager
    def listen(self, listener: Any) -> Iterator[None]:
        self.listeners.append(listener)
        yield
        self.listeners.remove(listener)


@define
class Api:
    """What a test asks, and how."""

    kernel: OllamaKernel
    http: httpx2.AsyncClient
    sdk: ollama.AsyncClient

    async def post(self, path: str, body: Any) -> httpx2.Response:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return await self.http.post(f"/api/{path}", content=content)

    async def chat(self, **fields: Any) -> httpx2.Response:
        return await self.post("chat", {"model": MODEL, "messages": hi(), **fields})

    async def generate(self, **fields: Any) -> httpx2.Response:
        return await self.post("generate", {"model": MODEL, "prompt": "Hi", **fields})

    async def asked(self, path: str = "chat", **fields: Any) -> Any:
        """Return the request that the kernel gets for a body."""
        before = len(self.kernel.answers)
        answer = await (self.chat if path == "chat" else self.generate)(**fields)
        assert answer.status_code == 200, answer.text
        return self.kernel.answers[before].request

    async def refusal(self, path: str = "chat", **fields: Any) -> str:
        """Return the message of a refusal, whose shape is checked."""
        answer = await (self.chat if path == "chat" else self.generate)(**fields)
        assert answer.status_code == 400, answer.text
        assert set(answer.json()) == {"error"}
        return str(answer.json()["error"])

    async def lines(self, path: str = "chat", **fields: Any) -> list[dict[str, Any]]:
        """Return the lines of a stream."""
        return split_lines(await (self.chat if path == "chat" else self.generate)(**fields))


def hi(text: str = "Hi") -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def split_lines(answer: httpx2.Response) -> list[dict[str, Any]]:
    """Return the objects of a stream, each of which must be one line."""
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert answer.text.endswith("\n")
    return [json.loads(line) for line in answer.text.split("\n")[:-1]]


@pytest.fixture
def kernel() -> OllamaKernel:
    return OllamaKernel()


@pytest.fixture
def surfaces(kernel: OllamaKernel) -> list[Any]:
    settings, any_kernel = OllamaSettings(heartbeat_s=0.05), kernel
    return [
        OllamaSurface(any_kernel, settings),  # type: ignore[arg-type]
        PullSurface(any_kernel, settings),  # type: ignore[arg-type]
        DeleteSurface(any_kernel),  # type: ignore[arg-type]
    ]


@pytest.fixture
async def api(kernel: OllamaKernel, surfaces: list[Any]) -> AsyncIterator[Api]:
    async with serving(*surfaces) as url:
        sdk = ollama.AsyncClient(host=url, timeout=10, trust_env=False)
        async with httpx2.AsyncClient(base_url=url, timeout=10) as http, sdk:
            yield Api(kernel, http, sdk)


@pytest.fixture
def lines() -> Callable[[httpx2.Response], list[dict[str, Any]]]:
    return split_lines


@pytest.fixture
def card() -> Callable[..., ModelCard]:
    """Return a function that makes cards."""

    def card(name: str, **fields: Any) -> ModelCard:
        return evolve(stub_card(name), **fields)

    return card


@pytest.fixture
def failed() -> dict[str, Any]:
    """The last step of a download that fails."""
    return {"state": JobState.FAILED, "error": JobError(code="not_found", message="no such repo")}
