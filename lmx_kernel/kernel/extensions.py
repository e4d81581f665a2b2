"""Adds and removes plugins while the daemon runs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence

import structlog

from lmx_kernel.config import ConfigError
from lmx_kernel.errors import ConflictError
from lmx_kernel.interfaces import PluginStatus, Router
from lmx_kernel.kernel.boot import Booted
from lmx_kernel.kernel.request_hooks import RequestHooks
from lmx_kernel.models.catalogue import Catalogue
from lmx_kernel.observe.bus import Bus
from lmx_kernel.plugins.settings import PluginSettings
from lmx_kernel.plugins.timeouts import in_thread
from lmx_kernel.routing.decide import RoutingSettings
from lmx_kernel.routing.placement import Placement
from lmx_kernel.runtime.lifecycle import Lifecycle

log = structlog.get_logger(__name__)


class Extensions:
    """Loads and unloads plugins, and updates the parts of the kernel that use their objects. One
    change happens at a time.

    :ivar requests: what plugins do with requests and answers.
    """

    def __init__(
        self,
        booted: Booted,
        catalogue: Catalogue,
        lifecycle: Lifecycle,
        placement: Placement,
        bus: Bus,
    ) -> None:
        self._booted = booted
        self._plugins = booted.plugins
        self._catalogue = catalogue
        self._lifecycle = lifecycle
        self._placement = placement
        self._bus = bus
        timeout_s = booted.settings.get(PluginSettings).timeout_s
        self.requests = RequestHooks(timeout_s, booted.plugins.calls)
        self._followers: list[Callable[[], Awaitable[None]]] = []
        self._changing = asyncio.Lock()
        self._changes = booted.plugins.changes
        self._use(self._plugins.routers(booted.settings))
        self._model_parts = self._find_model_parts()

    def follow(self, connect: Callable[[], Awaitable[None]]) -> None:
        """Await ``connect`` after every change of plugins.

        :param connect: uses the objects of the plugins that are active now, and takes those out
            that cannot be used.
        """
        self._followers.append(connect)

    async def rescan(self) -> list[PluginStatus]:
        """See :meth:`lmx_kernel.interfaces.Kernel.rescan_plugins`."""
        async with self._changing:
            added = await in_thread(self._changes.rescan, self._busy())
            await self._connect(added)
            return [one for one in self._plugins.statuses if one.name in added and one.is_in_use]

    async def enable(self, name: str) -> None:
        """See :meth:`lmx_kernel.interfaces.Kernel.enable_plugin`."""
        async with self._changing:
            await in_thread(self._changes.enable, name)
            await self._connect([name])
            self._check_in_use(name)

    async def reload(self, name: str) -> None:
        """See :meth:`lmx_kernel.interfaces.Kernel.reload_plugin`."""
        async with self._changing:
            await in_thread(self._changes.reload, name, self._busy())
            await self._connect([name])
            self._check_in_use(name)

    async def disable(self, name: str) -> None:
        """See :meth:`lmx_kernel.interfaces.Kernel.disable_plugin`."""
        async with self._changing:
            self._changes.disable(name, self._busy())
            await self._connect([])

    async def retry(self, name: str) -> None:
        """Use a plugin that did not answer in time and has answered since."""
        async with self._changing:
            added = await in_thread(self._changes.retry, name)
            if added:
                await self._connect(added)

    async def reconnect(self) -> None:
        """Take back what plugins offered that failed by themselves."""
        async with self._changing:
            await self._connect([])

    def _busy(self) -> Mapping[str, str]:
        """Return the plugins that run a loaded model, and which."""
        busy = {}
        for instance in self._lifecycle.instances.values():
            owner = self._plugins.owner_of("lmx_backends", instance.spec.card.backend)
            if instance.pid and owner is not None:
                busy[owner] = f"runs {instance.model}; unload it first"
        return busy

    def _check_in_use(self, name: str) -> None:
        """Check that a plugin could be connected.

        :raises ConflictError: it could not, with the reason.
        """
        for status in self._plugins.statuses:
            if status.name == name and not status.is_in_use:
                raise ConflictError(f"{name} cannot be used: {status.reason}")

    async def _connect(self, added: Collection[str]) -> None:
        try:
            await in_thread(self._booted.reload)
        except ConfigError as error:
            for name in self._to_blame(error, added):
                self._plugins.fail(name, error)
        await self._update_kernel()
        for connect in self._followers:
            await connect()
        before, self._model_parts = self._model_parts, await in_thread(self._find_model_parts)
        if [*map(id, self._model_parts)] != [*map(id, before)]:
            await self._catalogue.look_again()
        await in_thread(self._changes.close_unused)

    def _to_blame(self, error: ConfigError, added: Collection[str]) -> set[str]:
        """Return which of the new plugins a config is wrong for: those whose sections are, or if
        there is none of these, all that have one.
        """
        wrong = {problem.key.partition(".")[0] for problem in error.problems}
        owners = {name: self._plugins.owner_of("lmx_settings", name) for name in wrong}
        blamed = set(added) & {owner for owner in owners.values() if owner is not None}
        return blamed or {name for name in added if self._plugins.has_section(name)}

    def _find_model_parts(self) -> list[object]:
        """Return what a scan of the disk depends on: sources and backends."""
        settings = self._booted.settings
        return [*self._plugins.model_sources(settings), *self._plugins.backends(settings)]

    async def _update_kernel(self) -> None:
        self._use(await in_thread(self._plugins.routers, self._booted.settings))

    def _use(self, routers: Sequence[Router]) -> None:
        order = self._booted.settings.get(RoutingSettings).order
        for name in set(order) - {router.name for router in routers}:
            log.warning("router_unknown", router=name, key="routing.order")
        self._placement.use_routers(routers)
        self._bus.use_observers(self._plugins.observers())
        self.requests.use(
            self._plugins.callers("lmx_transform", "request"),
            self._plugins.callers("lmx_observe", "request", "model", "answer_id"),
        )
