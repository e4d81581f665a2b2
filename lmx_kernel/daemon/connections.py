"""Connects what plugins offer to the parts that use it: at the start, and when they come or go."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from functools import partial

import structlog

from lmx_kernel.daemon.lifespans import Lifespans
from lmx_kernel.daemon.supervision import TaskSupervisor
from lmx_kernel.events import Sampled
from lmx_kernel.http.app import SurfaceError, build_app
from lmx_kernel.http.health import Health
from lmx_kernel.http.shell import Shell
from lmx_kernel.interfaces import ApiSurface, Monitor
from lmx_kernel.kernel.assembly import Assembly
from lmx_kernel.kernel.boot import Booted
from lmx_kernel.observe.monitors import watch
from lmx_kernel.plugins.timeouts import in_thread

log = structlog.get_logger(__name__)


class Connections:
    """Asks the plugins and hands on what they return. A plugin whose objects cannot be used is
    taken out, and all the others are served.

    :param stack: what is to be ended when the daemon stops is entered there.
    """

    def __init__(
        self,
        booted: Booted,
        assembly: Assembly,
        shell: Shell,
        health: Health,
        supervisor: TaskSupervisor,
        stack: AsyncExitStack,
    ) -> None:
        self._booted = booted
        self._plugins = booted.plugins
        self._assembly = assembly
        self._shell = shell
        self._health = health
        self._supervisor = supervisor
        self._lifespans = Lifespans(self._lifespan_failed)
        stack.push_async_callback(self._lifespans.close_all)
        self._monitors: dict[str, Monitor] = {}
        assembly.extensions.follow(self._reconnect)

    def connect_surfaces(self) -> None:
        """Serve the dialects there are now. Blocks while the plugins are asked."""
        self._serve(self._plugins.api_surfaces(self._assembly.kernel))

    async def connect(self) -> None:
        """Use whatever there is now. A plugin may turn out to be of no use meanwhile; then what it
        offered before is taken back.
        """
        plugins, assembly, kernel = self._plugins, self._assembly, self._assembly.kernel
        while True:
            before = plugins.revision
            self._serve(await in_thread(plugins.api_surfaces, kernel))
            await self._lifespans.keep_only(self._in_use())
            await self._lifespans.open(await in_thread(plugins.lifespans, kernel))
            await assembly.jobs.open(await in_thread(plugins.job_kinds, kernel))
            await self._watch_monitors()
            if plugins.revision == before:
                return

    async def _reconnect(self) -> None:
        """Use whatever there is now, devices of new backends too: plugins came or went."""
        await self.connect()
        await in_thread(self._assembly.backends.probe_new_devices)

    def _serve(self, surfaces: list[ApiSurface]) -> None:
        """Serve these dialects, but for those that cannot be."""
        while True:
            try:
                app = build_app(surfaces, self._health)
                break
            except SurfaceError as error:
                self._plugins.fail_owner("lmx_api_surfaces", error.surface, error)
                owner = partial(self._plugins.owner_of, "lmx_api_surfaces")
                surfaces = [one for one in surfaces if owner(one.name) is not None]
        self._shell.app = app
        self._assembly.surfaces.replace(app.served)

    def _in_use(self) -> set[str]:
        return {status.name for status in self._plugins.statuses if status.is_in_use}

    def _lifespan_failed(self, plugin: str, error: BaseException) -> None:
        """Take out a plugin; its context may have failed long after the others were opened."""
        self._plugins.fail(plugin, error)
        self._supervisor.start("failed lifespan", self._assembly.extensions.reconnect)

    async def _watch_monitors(self) -> None:
        settings = self._booted.settings
        monitors = {m.name: m for m in await in_thread(self._plugins.monitors, settings)}
        gone = {name for name, one in self._monitors.items() if monitors.get(name) is not one}
        self._supervisor.stop(*map(_task_name, gone))
        for name in gone:  # its last figures are no longer true
            self._assembly.bus.publish(Sampled(monitor=name, values={}))
        for name in (monitors.keys() - self._monitors.keys()) | (gone & monitors.keys()):
            work = partial(
                watch, monitors[name], self._assembly.bus.publish, self._plugins.watch, self._mute
            )
            self._supervisor.start(_task_name(name), work)
        self._monitors = monitors

    def _mute(self, monitor: str, reason: str) -> None:
        if (owner := self._plugins.owner_of("lmx_monitors", monitor)) is not None:
            self._plugins.calls.mute(owner, reason)


def _task_name(monitor: str) -> str:
    return f"monitor {monitor}"


async def adopt_late(booted: Booted, assembly: Assembly) -> None:
    """Use plugins that did not answer in time at the start, as soon as they do."""
    loop, names = asyncio.get_running_loop(), asyncio.Queue[str]()
    changes = booted.plugins.changes
    changes.be_patient()

    def tell(name: str) -> None:
        loop.call_soon_threadsafe(names.put_nowait, name)

    changes.call_when_late(tell)
    while True:
        await assembly.extensions.retry(await names.get())
