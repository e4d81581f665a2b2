"""``/admin/plugins``."""

from __future__ import annotations

from typing import Literal

from attrs import frozen
from falcon.asgi import Request, Response

from lmx_admin_api.schema import PluginDetail, PluginList
from lmx_kernel.dialect.audit import audited
from lmx_kernel.errors import ConflictError
from lmx_kernel.http.json_body import send
from lmx_kernel.interfaces import Kernel, PluginStatus

OWN_NAME = "admin_api"


@frozen
class Plugins:
    """The installed plugins."""

    kernel: Kernel

    async def on_get(self, _req: Request, resp: Response) -> None:
        """List them."""
        send(resp, PluginList(plugins=tuple(self.kernel.plugins())))


@frozen
class RescanPlugins:
    """Looks for plugins that were installed since."""

    kernel: Kernel

    async def on_post(self, req: Request, resp: Response) -> None:
        """Use them, and list those that are active now and were not before."""
        with audited(req, "rescan", "plugins"):
            added = await self.kernel.rescan_plugins()
        send(resp, PluginList(plugins=tuple(added)))


@frozen
class OnePlugin:
    """A plugin."""

    kernel: Kernel

    async def on_get(self, _req: Request, resp: Response, name: str) -> None:
        """Show it, and its last calls."""
        calls = self.kernel.plugin_calls(name)
        send(resp, PluginDetail(plugin=_find(self.kernel, name), calls=tuple(calls)))


@frozen
class ChangePlugin:
    """Begins or stops to use a plugin until the next start, or imports it anew."""

    kernel: Kernel
    action: Literal["enable", "disable", "reload"]

    async def on_post(self, req: Request, resp: Response, name: str) -> None:
        """Do it, and show the plugin."""
        with audited(req, f"{self.action}_plugin", name):
            if self.action == "disable" and name == OWN_NAME:
                raise ConflictError("nobody could enable it again: disable it in the config")
            match self.action:
                case "enable":
                    await self.kernel.enable_plugin(name)
                case "disable":
                    await self.kernel.disable_plugin(name)
                case "reload":
                    await self.kernel.reload_plugin(name)
        send(resp, _find(self.kernel, name))


def _find(kernel: Kernel, name: str) -> PluginStatus:
    return next(one for one in kernel.plugins() if one.name == name)
