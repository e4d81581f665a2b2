"""Kernels for tests: one in process, or a whole daemon, both with fake models.

Discovery of installed plugins is off in both, so a test sees exactly the plugins that it names.
"""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TypeVar

import msgspec
import psutil
from attrs import asdict, frozen

from lmx_kernel.config import Settings
from lmx_kernel.errors import UnavailableError
from lmx_kernel.events import KernelEvent
from lmx_kernel.interfaces import Kernel
from lmx_kernel.kernel.assembly import Assembly, assemble
from lmx_kernel.kernel.boot import boot
from lmx_kernel.runtime.instance import Instance
from lmx_kernel.testing.fake_model import SUFFIX, FakeModel
from lmx_kernel.types import ChatPrompt, GenerationRequest, Message, TextPart

E = TypeVar("E")
FAKE = "lmx_kernel.testing.fake"


def write_fake_models(folder: Path, scripts: Mapping[str, FakeModel]) -> None:
    """Put fake models on disk."""
    for name, script in scripts.items():
        (folder / f"{name}{SUFFIX}").write_bytes(msgspec.json.encode(asdict(script)))


def write_config(folder: Path, plugins: tuple[str, ...] = (), config: str = "") -> Path:
    """Write a config that loads the fake backend, and ``plugins`` by import path, and return it.

    :param config: more of it, as TOML; must not have the tables ``plugins`` and ``fake``.
    """
    modules = ", ".join(f'"{name}"' for name in (FAKE, *plugins))
    path = folder / "config.toml"
    path.write_text(
        f'[plugins]\ndiscover = false\nmodules = [{modules}]\n[fake]\nfolder = "{folder}"\n{config}'
    )
    return path


def ask(model: str, text: str = "hello", **fields: object) -> GenerationRequest:
    """Return a chat request of one user message."""
    prompt = ChatPrompt((Message("user", (TextPart(text),)),))
    return GenerationRequest(model=model, prompt=prompt, **fields)  # type: ignore[arg-type]


@frozen
class RunningKernel:
    """A kernel in process. ``events`` is all that it published."""

    kernel: Kernel
    assembly: Assembly
    settings: Settings
    events: list[KernelEvent]

    def instance(self, model: str) -> Instance:
        """Return what runs a model that was asked for."""
        return self.assembly.lifecycle.instances[model]

    def seen(self, kind: type[E]) -> list[E]:
        """Return the events of one kind so far."""
        return [event for event in self.events if isinstance(event, kind)]

    async def until(self, kind: type[E], times: int = 1) -> list[E]:
        """Return the events of one kind, once there were so many."""
        changed = asyncio.Event()
        with self.kernel.listen(lambda _: changed.set()):
            while len(self.seen(kind)) < times:
                await changed.wait()
                changed.clear()
        return self.seen(kind)


def worker_processes(pid: int | None = None) -> list[psutil.Process]:
    """Return the worker processes that a process has, by default this one."""
    found = []
    for child in psutil.Process(pid).children():
        with suppress(psutil.Error):
            if "lmx_kernel.worker" in child.cmdline():
                found.append(child)
    return found


@asynccontextmanager
async def running_kernel(
    folder: Path,
    scripts: Mapping[str, FakeModel],
    config: str = "",
    plugins: tuple[str, ...] = (),
) -> AsyncIterator[RunningKernel]:
    """Hold a kernel open that serves ``scripts`` through real worker processes."""
    write_fake_models(folder, scripts)
    environ = {**os.environ, "LMX_HOME": str(folder)}
    booted = boot(write_config(folder, plugins, config), environ=environ)
    assembly = assemble(booted)
    assembly.catalogue.scan()
    events: list[KernelEvent] = []
    with assembly.bus.listen(events.append):
        try:
            yield RunningKernel(assembly.kernel, assembly, booted.settings, events)
        finally:
            await assembly.kernel.stored_answers.close()
            await assembly.lifecycle.close(UnavailableError("the test is over"))
            await assembly.jobs.close()


@frozen
class RunningDaemon:
    """A running `lmx serve`. ``announced`` is what it printed at the start."""

    process: Process
    url: str
    announced: tuple[str, ...]

    async def stop(self) -> int:
        """Ask it to stop, and return its exit status."""
        if self.process.returncode is None:
            self.process.terminate()
        return await self.process.wait()


@asynccontextmanager
async def running_daemon(config: Path, **env: str) -> AsyncIterator[RunningDaemon]:
    """Hold a daemon open that was started with ``config``, on a port and in a home of its own."""
    with (config.parent / "daemon.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "lmx_kernel", "serve", "--config", str(config)),
            stdout=PIPE,
            stderr=log,
            env={
                **os.environ,
                "LMX_HOME": str(config.parent),
                "LMX_SERVER_PORT": "0",
                **env,
            },
        )
    try:
        announced = await _announcement(process)
        yield RunningDaemon(process, announced[0].rpartition(" ")[2], announced)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()  # to the end of its output, or the loop closes with it open


async def _announcement(process: Process) -> tuple[str, ...]:
    assert process.stdout is not None
    lines = [(await process.stdout.readline()).decode().strip()]
    while lines[-1] and not lines[-1].startswith(("Models:", "No ")):
        lines.append((await process.stdout.readline()).decode().strip())
    if not lines[0]:
        raise AssertionError(f"the daemon ended with {await process.wait()}; see daemon.log")
    return tuple(lines)
