"""The daemon: from a config to an exit status."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable
from contextlib import AbstractContextManager, AsyncExitStack
from pathlib import Path

import attrs
import structlog
import uvloop

from lmx_kernel import __version__
from lmx_kernel.access.door import Door, UnsafeBindError, check_bind
from lmx_kernel.access.keys import KeyFile, Keyring
from lmx_kernel.config import ConfigError, find_home
from lmx_kernel.daemon.background import background
from lmx_kernel.daemon.connections import Connections
from lmx_kernel.daemon.run_file import Running, local_url, published, url_of
from lmx_kernel.daemon.sd_notify import feed_watchdog, notify
from lmx_kernel.errors import UnavailableError
from lmx_kernel.http.app import RouteClashError, build_app
from lmx_kernel.http.error_rendering import ErrorRenderer
from lmx_kernel.http.health import Health
from lmx_kernel.http.port import ListenError, PortInUseError, greeting_at
from lmx_kernel.http.server import HttpServer
from lmx_kernel.http.settings import ServerSettings
from lmx_kernel.http.shell import Shell
from lmx_kernel.http.surface_table import SurfaceTable
from lmx_kernel.kernel.assembly import Assembly, assemble
from lmx_kernel.kernel.boot import Booted, boot
from lmx_kernel.kernel.safe_mode import CrashLoopGuard
from lmx_kernel.plugins.manager import RequiredPluginError

NAME = "LMX"
EX_PORT = 98  # EADDRINUSE on Linux
SAFE_MODE = "Safe mode, since the last starts ended badly: no third-party plugins, no auto-load."
LAST_WORDS_S = 1.0  # for the error frames of what was cut off
log = structlog.get_logger(__name__)


REFUSALS = (ConfigError, RequiredPluginError, UnsafeBindError, RouteClashError, ListenError)


def run(config: Path | None = None) -> int:
    """Serve until told to stop; return the exit status."""
    guard = CrashLoopGuard(find_home())
    try:
        booted = boot(config, guard.begin(), log_to_file=True)
        server = booted.settings.get(ServerSettings)
        keys = Keyring(KeyFile(booted.settings.home), server.api_key)
        check_bind(server.host, keys)
        uvloop.run(_serve(booted, guard, keys))
    except REFUSALS as error:
        guard.withdraw()
        print(error, file=sys.stderr)  # noqa: T201 - for whoever started the daemon
        return _busy(error) if isinstance(error, PortInUseError) else os.EX_CONFIG
    guard.end()
    return 0


def _busy(error: PortInUseError) -> int:
    """Return the exit status for a port that is in use: 0 if that is by a healthy LMX."""
    greeting = greeting_at(error.host, error.port)
    if greeting is None or greeting.name != NAME:
        return EX_PORT
    print(f"LMX {greeting.version} serves there already: nothing to do.")  # noqa: T201
    notify("READY=1", "STATUS=another LMX serves")  # to end without it would count as a failure
    return 0


async def _serve(booted: Booted, guard: CrashLoopGuard, keys: Keyring) -> None:
    assembly = assemble(booted)
    settings = booted.settings.get(ServerSettings)
    health = _health(assembly)
    shell = _shell(booted, assembly.surfaces, keys, health)
    stop, now = _catch_signals()
    async with AsyncExitStack() as stack:
        connections = Connections(booted, assembly, shell, health, stack)
        connections.connect_surfaces()
        server = HttpServer(settings, shell)
        server.bind()
        stack.enter_context(assembly.bus.listen(guard.on_event))
        await connections.connect()
        await server.start()
        stack.enter_context(_published(booted, keys, server.port))
        await asyncio.to_thread(assembly.backends.probe_devices)
        await assembly.catalogue.refresh()
        stack.callback(asyncio.ensure_future(feed_watchdog()).cancel)
        tasks = [asyncio.ensure_future(work) for work in background(booted, assembly)]
        _announce(booted, assembly, server.port)
        notify("READY=1", f"STATUS=serves on port {server.port}")
        await stop.wait()
        notify("STOPPING=1")
        assembly.kernel.begin_drain()
        for task in tasks:  # or one of them would load a model while the others are unloaded
            task.cancel()
        await _first(server.drain(settings.drain_s), now.wait())
        await assembly.lifecycle.close(UnavailableError("the server is stopping", retry_after_s=5))
        await server.drain(LAST_WORDS_S)
        await server.stop()
        await assembly.jobs.close()


def _published(booted: Booted, keys: Keyring, port: int) -> AbstractContextManager[None]:
    url = local_url(booted.settings.get(ServerSettings).host, port)
    running = Running(url=url, pid=os.getpid(), token=keys.local_token)
    return published(booted.settings.home, running)


def _health(assembly: Assembly) -> Health:
    kernel = assembly.kernel
    return Health(
        name=NAME,
        version=__version__,
        docs="see the README of lmx-kernel",
        is_ready=lambda: not kernel.draining and assembly.catalogue.is_scanned,
        status=lambda: attrs.asdict(kernel.status()),
    )


def _shell(booted: Booted, surfaces: SurfaceTable, keys: Keyring, health: Health) -> Shell:
    settings = booted.settings.get(ServerSettings)
    door = Door(settings.host, keys, surfaces.owner, booted.plugins.authorize)
    return Shell(build_app((), health), settings, ErrorRenderer(surfaces), door.admit)


def _catch_signals() -> tuple[asyncio.Event, asyncio.Event]:
    """Return what the first signal sets (finish and stop) and what a second one sets (stop now)."""
    stop, now = asyncio.Event(), asyncio.Event()

    def on_signal() -> None:
        (now if stop.is_set() else stop).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, on_signal)
    return stop, now


async def _first(*waits: Awaitable[object]) -> None:
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()


def _announce(booted: Booted, assembly: Assembly, port: int) -> None:
    """Tell whoever started the daemon where it is and what to try."""
    host = booted.settings.get(ServerSettings).host
    url = url_of(host, port)
    models = [card.id for card in assembly.catalogue.cards if not card.problem]
    lines = [f"LMX {__version__} serves on {url}"]
    if booted.verdict.safe_mode:
        lines.append(SAFE_MODE)
    lines.append(
        f"Models: {', '.join(models)}" if models else "No models: there is nothing to serve."
    )
    surfaces = assembly.kernel.surfaces
    if not surfaces:
        lines.append("No API plugin is active: only /health answers.")
    lines += [surface.example(url, models[0]) for surface in surfaces if models]
    print("\n".join(lines), flush=True)  # noqa: T201 - for whoever started the daemon
