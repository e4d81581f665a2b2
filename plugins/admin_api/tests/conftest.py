"""The admin API over a kernel with fake models: in process, or in a daemon."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from attrs import define, evolve, field, frozen
from lmx_admin_api.benchmark import Benchmarks
from lmx_admin_api.settings import AdminSettings
from lmx_admin_api.surface import AdminSurface
from structlog.testing import capture_logs

from lmx_kernel.http.app import build_app
from lmx_kernel.http.error_rendering import ErrorRenderer
from lmx_kernel.http.health import Health
from lmx_kernel.http.server import HttpServer
from lmx_kernel.http.settings import ServerSettings
from lmx_kernel.http.shell import Shell
from lmx_kernel.http.surface_table import SurfaceTable
from lmx_kernel.testing.fake_model import FakeModel
from lmx_kernel.testing.harness import (
    RunningDaemon,
    RunningKernel,
    ask,
    running_daemon,
    running_kernel,
    write_config,
    write_fake_models,
)

HERE = Path(__file__).parent


@define
class Api:
    """The API of a kernel in this process; ``lines`` is its log."""

    stage: RunningKernel
    http: httpx2.AsyncClient
    lines: list[dict[str, Any]]

    async def get(self, path: str, **query: Any) -> httpx2.Response:
        return await self.http.get(f"/admin/{path}", params=query)

    async def post(self, path: str, **body: Any) -> httpx2.Response:
        return await self.http.post(f"/admin/{path}", json=body)

    async def delete(self, path: str) -> httpx2.Response:
        return await self.http.delete(f"/admin/{path}")

    async def answer(self, model: str, text: str = "hello", tokens: int = 3, key: str = "") -> None:
        """Let a model answer."""
        request = ask(model, text, max_tokens=tokens, caller=key)
        with await self.stage.kernel.generate(request) as answer:
            async for _ in answer:
                pass

    async def until(self, holds: Callable[[], object]) -> None:
        """Wait for an event after which something holds."""
        changed = asyncio.Event()
        with self.stage.kernel.listen(lambda _: changed.set()):
            async with asyncio.timeout(20):
                while not holds():
                    await changed.wait()
                    changed.clear()

    def audit(self) -> list[tuple[str, str, str]]:
        """Return action, target and outcome of each change."""
        lines = [line for line in self.lines if line["event"] == "audit"]
        return [(line["action"], line["target"], line["outcome"]) for line in lines]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own for what this process serves."""
    monkeypatch.setenv("LMX_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def serve(home: Path):
    """Return a context that holds the API open over fake models."""

    @asynccontextmanager
    async def hold(
        scripts: dict[str, FakeModel], *kinds: Any, config: str = "", **settings: Any
    ) -> AsyncIterator[Api]:
        health = Health(name="x", version="0", docs="", is_ready=lambda: True, status=dict)
        server_settings = ServerSettings(port=0)
        async with running_kernel(home, scripts, config) as stage:
            surface = AdminSurface(stage.kernel, AdminSettings(**settings))
            shell = Shell(
                build_app([surface], health),
                server_settings,
                ErrorRenderer(SurfaceTable([surface])),
                lambda request: evolve(request, key=request.headers.get("x-api-key", "")),
            )
            server = HttpServer(server_settings, shell)
            await server.start()
            await stage.assembly.jobs.open([Benchmarks(stage.kernel), *kinds])
            url = f"http://127.0.0.1:{server.port}"
            try:
                with capture_logs() as lines:
                    async with httpx2.AsyncClient(base_url=url, timeout=30) as http:
                        yield Api(stage, http, lines)
            finally:
                await server.stop()

    return hold


@pytest.fixture
def downloads(home: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A kind of job that waits for a file ``go`` at home."""
    monkeypatch.syspath_prepend(HERE)
    from admin_fake_kinds import FakeDownloads

    return FakeDownloads()


@frozen
class Outcome:
    """How a command ended."""

    status: int
    out: str
    err: str


@define
class Daemon:
    """A whole daemon with this plugin, and its command line."""

    daemon: RunningDaemon
    home: Path
    http: httpx2.AsyncClient
    started: list[asyncio.subprocess.Process] = field(factory=list)

    async def start(
        self, *arguments: str, stdout: int = PIPE, stderr: int = PIPE
    ) -> asyncio.subprocess.Process:
        """Start an `lmx` command; it ends with the daemon at the latest."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "lmx_kernel", *arguments),
            *("--config", str(self.home / "config.toml")),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            env={**_environ(self.home), "LMX_URL": self.daemon.url, "COLUMNS": "200"},
            # A run in the background of a shell has Ctrl-C ignored, and would hand that on.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        self.started.append(process)
        return process

    async def lmx(self, *arguments: str) -> Outcome:
        """Run an `lmx` command to its end."""
        process = await self.start(*arguments)
        out, err = await process.communicate()
        return Outcome(process.returncode, out.decode(), err.decode())

    async def state_of(self, model: str) -> str:
        """Return a model's state, as soon as it was asked for."""
        async with asyncio.timeout(20):
            while not (status := (await self.http.get(f"/admin/models/{model}")).json()["status"]):
                await asyncio.sleep(0.02)
        return status["state"]

    async def job(self) -> dict[str, Any]:
        """Return the newest job, as soon as there is one."""
        async with asyncio.timeout(20):
            while not (jobs := (await self.http.get("/admin/jobs")).json()["jobs"]):
                await asyncio.sleep(0.02)
        return jobs[0]


def _environ(home: Path) -> dict[str, str]:
    return {**os.environ, "LMX_HOME": str(home), "PYTHONPATH": str(HERE)}


@pytest.fixture
def serve_daemon(tmp_path: Path):
    """Return a context that holds a daemon open with this plugin and fake downloads."""

    @asynccontextmanager
    async def hold(scripts: dict[str, FakeModel], config: str = "") -> AsyncIterator[Daemon]:
        write_fake_models(tmp_path, scripts)
        plugins = ("lmx_admin_api.plugin", "lmx_openai_api.plugin", "admin_fake_kinds")
        path = write_config(tmp_path, plugins, config)
        async with (
            running_daemon(path, **_environ(tmp_path)) as daemon,
            httpx2.AsyncClient(base_url=daemon.url, timeout=30) as http,
        ):
            held = Daemon(daemon, tmp_path, http)
            try:
                yield held
            finally:
                for process in held.started:
                    if process.returncode is None:
                        process.kill()
                        await process.communicate()

    return hold
