"""The daemon: from a config to an exit status."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Awaitable, Iterable
from contextlib import AsyncExitStack

import attrs
import structlog
import uvloop

from lmx_kernel import __version__
from lmx_kernel.assembly import Assembly, assemble
from lmx_kernel.boot import Booted
from lmx_kernel.errors import UnavailableError
from lmx_kernel.http.access import UnsafeBindError, authorizer, check_bind
from lmx_kernel.http.app import RouteClashError, build_app
from lmx_kernel.http.health import Health
from lmx_kernel.http.port import ListenError, PortInUseError
from lmx_kernel.http.render import ErrorRenderer
from lmx_kernel.http.server import HttpServer
from lmx_kernel.http.settings import ServerSettings
from lmx_kernel.http.shell import Shell
from lmx_kernel.interfaces import ApiSurface
from lmx_kernel.monitors import watch
from lmx_kernel.runtime.settings import ModelSettings

EX_CONFIG = 78  # sysexits.h: the config is wrong
EX_PORT = 98  # EADDRINUSE on Linux
LAST_WORDS_S = 1.0  # for the error frames of what was cut off
log = structlog.get_logger(__name__)


def run(booted: Booted) -> int:
    """Serve until told to stop; return the exit status."""
    try:
        check_bind(booted.settings.get(ServerSettings))
        return uvloop.run(_serve(booted))
    except (UnsafeBindError, RouteClashError, ListenError) as error:
        print(error, file=sys.stderr)  # noqa: T201 - for whoever started the daemon
        return EX_PORT if isinstance(error, PortInUseError) else EX_CONFIG


async def _serve(booted: Booted) -> int:
    assembly = assemble(booted)
    surfaces = booted.plugins.api_surfaces(assembly.kernel)
    server = _build_server(booted, assembly, surfaces)
    server.bind()
    stop, now = _catch_signals()
    async with AsyncExitStack() as stack:
        await _enter_lifespans(stack, booted, assembly)
        await server.start()
        tasks = _start_background(booted, assembly)
        await assembly.catalogue.refresh()
        _announce(booted, assembly, surfaces, server.port)
        await stop.wait()
        assembly.kernel.draining = True
        await _first(server.drain(booted.settings.get(ServerSettings).drain_s), now.wait())
        await assembly.lifecycle.close(UnavailableError("the server is stopping", retry_after_s=5))
        await server.drain(LAST_WORDS_S)
        await server.stop()
        for task in tasks:
            task.cancel()
    return 0


def _build_server(booted: Booted, assembly: Assembly, surfaces: Iterable[ApiSurface]) -> HttpServer:
    kernel, settings = assembly.kernel, booted.settings.get(ServerSettings)
    health = Health(
        name="LMX",
        version=__version__,
        docs="see the README of lmx-kernel",
        is_ready=lambda: not kernel.draining and assembly.catalogue.is_scanned,
        status=lambda: attrs.asdict(kernel.status()),
    )
    authorize = authorizer(settings.api_key, booted.plugins.authorize)
    shell = Shell(build_app(surfaces, health), settings, ErrorRenderer(surfaces), authorize)
    return HttpServer(settings, shell)


def _catch_signals() -> tuple[asyncio.Event, asyncio.Event]:
    """Return what the first signal sets (finish and stop) and what a second one sets (stop now)."""
    stop, now = asyncio.Event(), asyncio.Event()

    def on_signal() -> None:
        (now if stop.is_set() else stop).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, on_signal)
    return stop, now


async def _enter_lifespans(stack: AsyncExitStack, booted: Booted, assembly: Assembly) -> None:
    for context in booted.plugins.lifespans(assembly.kernel):
        try:
            await stack.enter_async_context(context)
        # A plugin's: it may fail in any way, and the daemon goes on without it.
        except (Exception, SystemExit):
            log.exception("lifespan_failed")


def _start_background(booted: Booted, assembly: Assembly) -> list[asyncio.Task[None]]:
    loop = asyncio.get_running_loop()
    rescan_s = booted.settings.get(ModelSettings).rescan_s
    monitors = booted.plugins.monitors(booted.settings)
    return [
        loop.create_task(_rescan(assembly, rescan_s)),
        *(loop.create_task(watch(monitor, assembly.bus.publish)) for monitor in monitors),
    ]


async def _rescan(assembly: Assembly, interval_s: float) -> None:
    while True:
        await asyncio.sleep(interval_s)
        await assembly.catalogue.refresh()


async def _first(*waits: Awaitable[object]) -> None:
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()


def _announce(
    booted: Booted, assembly: Assembly, surfaces: Iterable[ApiSurface], port: int
) -> None:
    """Tell whoever started the daemon where it is and what to try."""
    host = booted.settings.get(ServerSettings).host
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    models = [card.id for card in assembly.catalogue.cards if not card.problem]
    lines = [f"LMX {__version__} serves on {url}"]
    lines.append(
        f"Models: {', '.join(models)}" if models else "No models: there is nothing to serve."
    )
    if not surfaces:
        lines.append("No API plugin is active: only /health answers.")
    lines += [surface.example(url, models[0]) for surface in surfaces if models]
    print("\n".join(lines), flush=True)  # noqa: T201 - for whoever started the daemon
