"""Adds and removes plugins while the daemon runs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from lmx_kernel.config import ConfigError
from lmx_kernel.errors import ConflictError
from lmx_kernel.interfaces import PluginStatus
from lmx_kernel.kernel.boot import Booted
from lmx_kernel.kernel.request_hooks import RequestHooks
from lmx_kernel.models.catalogue import Catalogue
from lmx_kernel.observe.bus import Bus
from lmx_kernel.plugins.discovery import PluginSettings
from lmx_kernel.routing.placement import Placement
from lmx_kernel.runtime.lifecycle import Lifecycle


class Extensions:
    """Loads and unloads plugins, and updates the parts of the kernel that use their objects.

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
        self.requests = RequestHooks(booted.settings.get(PluginSettings).timeout_s)
        self._followers: list[Callable[[], Awaitable[None]]] = []
        self._update_kernel()

    def follow(self, connect: Callable[[], Awaitable[None]]) -> None:
        """Await ``connect`` after every change of plugins.

        :param connect: uses the objects of the plugins that are active now; raises ConflictError if
            they cannot be used together.
        """
        self._followers.append(connect)

    async def rescan(self) -> list[PluginStatus]:
        """See :meth:`lmx_kernel.interfaces.Kernel.rescan_plugins`."""
        added = await asyncio.to_thread(self._plugins.rescan)
        await self._connect(added)
        return [status for status in self._plugins.statuses if status.name in added]

    async def enable(self, name: str) -> None:
        """See :meth:`lmx_kernel.interfaces.Kernel.enable_plugin`."""
        await asyncio.to_thread(self._plugins.enable, name)
        await self._connect([name])

    async def disable(self, name: str) -> None:
        """See :meth:`lmx_kernel.interfaces.Kernel.disable_plugin`."""
        for instance in self._lifecycle.instances.values():
            backend = instance.spec.card.backend
            if instance.pid and self._plugins.owner_of("lmx_backends", backend) == name:
                raise ConflictError(f"{name} runs {instance.model}; unload it first")
        self._plugins.disable(name)
        await self._changed()
        await self._catalogue.refresh()

    async def _connect(self, added: Sequence[str]) -> None:
        try:
            await asyncio.to_thread(self._booted.reload)
            await self._changed()
        except (ConfigError, ConflictError) as error:
            for name in added:
                self._plugins.disable(name, str(error))
            await self._changed()
            raise ConflictError(f"{', '.join(added)} cannot be used: {error}") from error
        await self._catalogue.refresh()

    async def _changed(self) -> None:
        self._update_kernel()
        for connect in self._followers:
            await connect()
        await asyncio.to_thread(self._plugins.close_unused)

    def _update_kernel(self) -> None:
        self._placement.use_routers(self._plugins.routers(self._booted.settings))
        self._bus.use_observers(self._plugins.observers())
        self.requests.use(self._plugins.transforms(), self._plugins.answer_hooks())
