"""Pages of metrics, from a daemon or from events alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.metadata import entry_points
from pathlib import Path
from types import SimpleNamespace

import falcon.asgi
import httpx2 as httpx
import pytest
from attrs import frozen
from falcon.testing import TestClient
from lmx_prometheus.metrics import Metrics
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from lmx_kernel.engine import EngineStats
from lmx_kernel.events import KernelEvent
from lmx_kernel.hookspecs import GROUP
from lmx_kernel.interfaces import KeyStatus
from lmx_kernel.plugins.manager import Plugins
from lmx_kernel.plugins.settings import PluginSettings
from lmx_kernel.testing.fake_model import FakeModel
from lmx_kernel.testing.harness import FAKE, running_daemon, write_fake_models


@frozen
class Page:
    """A page as Prometheus reads it."""

    text: str

    @property
    def samples(self):
        families = text_string_to_metric_families(self.text)
        return [sample for family in families for sample in family.samples]

    @property
    def names(self) -> set[str]:
        return {sample.name for sample in self.samples}

    def value(self, name: str, /, **labels: str) -> float:
        """Return the sum of the samples with (at least) these labels; 0 if there are none."""
        return sum(
            sample.value
            for sample in self.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def labels(self, label: str) -> set[str]:
        """Return all values of a label."""
        return {sample.labels[label] for sample in self.samples if label in sample.labels}


@pytest.fixture
def page_after() -> Callable[..., Page]:
    """Return a function that returns the page after some events."""

    def page(*told: KernelEvent) -> Page:
        metrics = Metrics()
        for event in told:
            metrics.count(event)
        return Page(generate_latest(metrics.registry).decode())

    return page


def all_but(*names: str) -> list[str]:
    """Return the installed plugins but these."""
    return sorted({entry.name for entry in entry_points(group=GROUP)} - set(names))


@pytest.fixture
def load() -> Callable[[], Plugins]:
    """Return a function that loads this plugin as a kernel does."""
    return lambda: Plugins(PluginSettings(disabled=tuple(all_but("prometheus"))))


@pytest.fixture
def kernel() -> SimpleNamespace:
    """Something with a status: one model that is loaded, and one that is not."""
    engine = EngineStats(cache_tokens_used=50, memory_bytes=80, details={"kept_prefixes": 2})
    models = (
        SimpleNamespace(
            id="a",
            state="ready",
            running=2,
            waiting=3,
            memory_bytes=100,
            observed_bytes=90,
            engine=engine,
        ),
        SimpleNamespace(
            id="b",
            state="absent",
            running=0,
            waiting=0,
            memory_bytes=0,
            observed_bytes=0,
            engine=None,
        ),
    )
    status = SimpleNamespace(
        keys=(KeyStatus(name="bot", open=2, requests=5, prompt_tokens=30, completion_tokens=20),),
        uptime_s=9.5,
        models=models,
        safe_mode=True,
        memory_machine_bytes=2000,
        memory_budget_bytes=1000,
        memory_reserved_bytes=100,
        memory_available_bytes=900,
        memory_observed_bytes=90,
        memory_pressure="soft",
    )
    return SimpleNamespace(status=lambda: status, metrics=list)


@pytest.fixture
def page_of(kernel: SimpleNamespace) -> Callable[[Plugins], Page]:
    """Return a function that scrapes the surface of loaded plugins."""

    def scrape(plugins: Plugins) -> Page:
        app = falcon.asgi.App()
        for surface in plugins.api_surfaces(kernel):
            for path, resource in surface.routes():
                app.add_route(path, resource)
        return Page(TestClient(app).simulate_get("/metrics").text)

    return scrape


@frozen
class Daemon:
    """A daemon with metrics."""

    http: httpx.AsyncClient

    async def ask(self, model: str, text: str = "hello", max_tokens: int = 3) -> int:
        """Ask a model, and return the status."""
        messages = [{"role": "user", "content": text}]
        body = {"model": model, "messages": messages, "max_tokens": max_tokens}
        return (await self.http.post("/v1/chat/completions", json=body)).status_code

    async def page(self) -> Page:
        response = await self.http.get("/metrics")
        assert response.status_code == 200
        return Page(response.text)

    async def page_when(self, is_told: Callable[[Page], bool]) -> Page:
        """Return the first page of which this holds: events are told in a thread of their own."""
        async with asyncio.timeout(30):
            while not is_told(page := await self.page()):
                await asyncio.sleep(0.02)
        return page


@pytest.fixture
def serve(tmp_path: Path):
    """Return a context that holds a daemon open with the plugins of this repository it needs."""

    @asynccontextmanager
    async def hold(
        scripts: dict[str, FakeModel], more: tuple[str, ...] = (), config: str = ""
    ) -> AsyncIterator[Daemon]:
        write_fake_models(tmp_path, scripts)
        path = tmp_path / "config.toml"
        path.write_text(
            f'[plugins]\nmodules = ["{FAKE}"]\n'
            f"disabled = {all_but('prometheus', 'openai_api', *more)}\n"
            f'[fake]\nfolder = "{tmp_path}"\n{config}'
        )
        async with (
            running_daemon(path) as daemon,
            httpx.AsyncClient(base_url=daemon.url, timeout=30) as http,
        ):
            yield Daemon(http)

    return hold
