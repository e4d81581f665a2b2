"""The daemon: what it does from the config being read to the last answer."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractContextManager, AsyncExitStack
from functools import partial

import attrs
import structlog

from lmx_kernel import __version__
from lmx_kernel.access.door import Door
from lmx_kernel.access.keys import Keyring
from lmx_kernel.daemon import liveness
from lmx_kernel.daemon.background import background
from lmx_kernel.daemon.connections import Connections
from lmx_kernel.daemon.retry_pause import forget_failures
from lmx_kernel.daemon.run_file import Running, local_url, published, url_of
from lmx_kernel.daemon.sd_notify import feed_watchdog, notify
from lmx_kernel.daemon.supervision import TaskSupervisor
from lmx_kernel.errors import UnavailableError
from lmx_kernel.http.app import build_app
from lmx_kernel.http.error_rendering import ErrorRenderer
from lmx_kernel.http.health import Health
from lmx_kernel.http.server import HttpServer
from lmx_kernel.http.settings import ServerSettings
from lmx_kernel.http.shell import Shell
from lmx_kernel.http.surface_table import SurfaceTable
from lmx_kernel.interfaces import ApiSurface, HttpRequest
from lmx_kernel.kernel.assembly import Assembly, assemble
from lmx_kernel.kernel.boot import Booted
from lmx_kernel.kernel.safe_mode import CrashLoopGuard
from lmx_kernel.plugins.manager import Plugins
from lmx_kernel.plugins.timeouts import in_thread

NAME = "LMX"
SAFE_MODE = "Safe mode, since the last starts ended badly: no third-party plugins, no auto-load."
LAST_WORDS_S = 1.0  # for the error frames of what was cut off
log = structlog.get_logger(__name__)


async def serve(
    booted: Booted,
    guard: CrashLoopGuard,
    keys: Keyring,
    on_ready: Callable[[], None],
    *,
    needs_liveness: bool,
) -> None:
    """Serve until a signal comes.

    :param on_ready: called once it serves and has said so.
    :param needs_liveness: nobody else ends this process if its event loop is stuck.
    :raises ListenError: as :meth:`HttpServer.bind`.
    """
    assembly = assemble(booted)
    settings = booted.settings.get(ServerSettings)
    supervisor = TaskSupervisor()
    health = _health(assembly, supervisor)
    shell = _shell(booted, assembly.surfaces, keys, health)
    stop, now = _catch_signals()
    async with AsyncExitStack() as stack:
        stack.callback(supervisor.stop_all)
        if needs_liveness:
            supervisor.start("liveness", liveness.stay_armed)
        connections = Connections(booted, assembly, shell, health, supervisor, stack)
        connections.connect_surfaces()
        server = HttpServer(settings, shell)
        server.bind()
        stack.enter_context(assembly.bus.listen(guard.on_event))
        await connections.connect()
        await server.start()
        stack.enter_context(_published(booted, keys, server))
        tasks = await _start_background(booted, assembly, supervisor)
        _announce(booted, assembly, server)
        on_ready()
        await stop.wait()
        await _begin_drain(assembly, supervisor, tasks)
        await _first(server.drain(settings.drain_s), now.wait())
        await _end(server, assembly, booted.plugins)


async def _start_background(
    booted: Booted, assembly: Assembly, supervisor: TaskSupervisor
) -> Iterable[str]:
    """Find devices and models, start what runs beside the server, and return what of it may load
    models.
    """
    await in_thread(assembly.backends.probe_devices)
    await assembly.catalogue.refresh()
    tasks = background(booted, assembly)
    for name, work in {"service watchdog": feed_watchdog, **tasks}.items():
        supervisor.start(name, work)
    return tasks


async def _begin_drain(
    assembly: Assembly, supervisor: TaskSupervisor, tasks: Iterable[str]
) -> None:
    """Begin nothing new. What is computed in the background goes on when LMX is started again."""
    notify("STOPPING=1")
    supervisor.stop(*tasks)  # or one would load a model meanwhile
    assembly.kernel.begin_drain()
    await assembly.kernel.stored_answers.suspend()


async def _end(server: HttpServer, assembly: Assembly, plugins: Plugins) -> None:
    """Cut off what still runs, with an error for each client, and end the plugins."""
    await assembly.lifecycle.close(UnavailableError("the server is stopping", retry_after_s=5))
    await server.drain(LAST_WORDS_S)
    await server.stop()
    await assembly.jobs.close()
    await assembly.kernel.stored_answers.close()
    await in_thread(plugins.changes.close)


def _published(booted: Booted, keys: Keyring, server: HttpServer) -> AbstractContextManager[None]:
    """Return a context in which others find the daemon, which has started without a failure."""
    forget_failures(booted.settings.home)
    settings = booted.settings.get(ServerSettings)
    urls = tuple(local_url(settings.scheme, one.host, one.port) for one in server.addresses)
    running = Running(
        url=urls[0],
        urls=urls,
        pid=os.getpid(),
        token=keys.local_token,
        certificate=settings.tls_cert,
    )
    return published(booted.settings.home, running)


def _health(assembly: Assembly, supervisor: TaskSupervisor) -> Health:
    kernel = assembly.kernel
    return Health(
        name=NAME,
        version=__version__,
        docs="see the README of lmx-kernel",
        is_ready=lambda: not kernel.draining and assembly.catalogue.is_scanned,
        status=lambda: attrs.asdict(kernel.status()) | {"task_problems": supervisor.problems},
    )


def _shell(booted: Booted, surfaces: SurfaceTable, keys: Keyring, health: Health) -> Shell:
    settings = booted.settings.get(ServerSettings)
    door = Door(settings.is_local, keys, surfaces.answering, booted.plugins.authorize)
    renderer = ErrorRenderer(surfaces)
    on_fault = partial(_note_fault, booted.plugins, surfaces)
    return Shell(build_app((), health), settings, renderer, door.admit, on_fault)


def _note_fault(
    plugins: Plugins, surfaces: SurfaceTable, request: HttpRequest, error: Exception
) -> None:
    """Record an error in the code of a dialect with the plugin that it belongs to."""
    surface = surfaces.answering(request.path, request.headers)
    owner = surface and plugins.owner_of("lmx_api_surfaces", surface.name)
    if owner:
        plugins.calls.note_error(owner, f"{request.method} {request.path[:100]}", error)


def _example(surface: ApiSurface, url: str, model: str) -> str:
    try:
        return str(surface.example(url, model) or "")
    # A plugin's: it may fail in any way, and its example is left out.
    except (Exception, SystemExit):
        log.exception("example_failed", surface=surface.name)
        return ""


def _catch_signals() -> tuple[asyncio.Event, asyncio.Event]:
    """Return what the first signal sets (finish and stop) and what a second one sets (stop now).

    A closed terminal stops the daemon, unless nohup(1) started it. It may send SIGHUP twice, so
    that never counts as a second signal.
    """
    stop, now = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal() -> None:
        (now if stop.is_set() else stop).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        loop.add_signal_handler(signal.SIGHUP, stop.set)
    return stop, now


async def _first(*waits: Awaitable[object]) -> None:
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()


def _announce(booted: Booted, assembly: Assembly, server: HttpServer) -> None:
    """Tell whoever started the daemon, and the service manager, where it is and what to try."""
    scheme = booted.settings.get(ServerSettings).scheme
    url, *others = [url_of(scheme, one.host, one.port) for one in server.addresses]
    usable = [card for card in assembly.catalogue.cards if not card.problem]
    models = [card.id for card in sorted(usable, key=lambda card: "embedding" in card.capabilities)]
    lines = [f"LMX {__version__} serves on {url}", *(f"and on {other}" for other in others)]
    if booted.verdict.safe_mode:
        lines.append(SAFE_MODE)
    lines.append(
        f"Models: {', '.join(models)}" if models else "No models: there is nothing to serve."
    )
    surfaces = assembly.kernel.surfaces
    if not surfaces:
        lines.append("No API plugin is active: only /health answers.")
    lines += filter(None, (_example(surface, url, models[0]) for surface in surfaces if models))
    print("\n".join(lines), flush=True)  # noqa: T201 - for whoever started the daemon
    ports = ", ".join(str(one.port) for one in server.addresses)
    notify("READY=1", f"STATUS=serves on port {ports}")
