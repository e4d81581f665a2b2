"""Connects what plugins offer to the parts that use it: at the start, and when they come or go."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from functools import partial

import structlog

from lmx_kernel.daemon.supervision import TaskSupervisor
from lmx_kernel.errors import ConflictError
from lmx_kernel.http.app import RouteClashError, build_app
from lmx_kernel.http.health import Health
from lmx_kernel.http.shell import Shell
from lmx_kernel.kernel.assembly import Assembly
from lmx_kernel.kernel.boot import Booted
from lmx_kernel.observe.monitors import watch

log = structlog.get_logger(__name__)


class Connections:
    """Asks the plugins and hands on what they return.

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
        self._assembly = assembly
        self._shell = shell
        self._health = health
        self._supervisor = supervisor
        self._stack = stack
        self._monitors: set[str] = set()
        assembly.extensions.follow(self._reconnect)

    def connect_surfaces(self) -> None:
        """Serve the dialects there are now.

        :raises RouteClashError: two of them want the same path; what was served still is.
        """
        surfaces = self._booted.plugins.api_surfaces(self._assembly.kernel)
        self._shell.app = build_app(surfaces, self._health)
        self._assembly.surfaces.replace(surfaces)

    async def connect(self) -> None:
        """Use whatever else there is now."""
        plugins, assembly = self._booted.plugins, self._assembly
        await self._enter_lifespans()
        await assembly.jobs.open(plugins.job_kinds(assembly.kernel))
        self._watch_monitors()

    async def _reconnect(self) -> None:
        """Use whatever there is now, dialects and devices too: plugins came or went.

        :raises ConflictError: two dialects want the same path.
        """
        try:
            self.connect_surfaces()
        except RouteClashError as error:
            raise ConflictError(str(error)) from error
        await self.connect()
        await asyncio.to_thread(self._assembly.backends.probe_devices)

    async def _enter_lifespans(self) -> None:
        for context in self._booted.plugins.lifespans(self._assembly.kernel):
            try:
                await self._stack.enter_async_context(context)
            # A plugin's: it may fail in any way, and the daemon goes on without it.
            except (Exception, SystemExit):
                log.exception("lifespan_failed")

    def _watch_monitors(self) -> None:
        monitors = {m.name: m for m in self._booted.plugins.monitors(self._booted.settings)}
        self._supervisor.stop(*map(_task_name, self._monitors - monitors.keys()))
        for name in monitors.keys() - self._monitors:
            work = partial(watch, monitors[name], self._assembly.bus.publish)
            self._supervisor.start(_task_name(name), work)
        self._monitors = set(monitors)


def _task_name(monitor: str) -> str:
    return f"monitor {monitor}"
