"""``/admin/plugins``."""

from __future__ import annotations

from typing import Literal

from attrs import frozen
from falcon.asgi import Request, Response

from lmx_admin_api.schema import PluginList
from lmx_kernel.dialect.audit import audited
from lmx_kernel.errors import ConflictError
from lmx_kernel.http.json_body import send
from lmx_kernel.interfaces import Kernel

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
class SwitchPlugin:
    """Begins or stops to use a plugin, until the next start."""

    kernel: Kernel
    action: Literal["enable", "disable"]

    async def on_post(self, req: Request, resp: Response, name: str) -> None:
        """Do it, and show the plugin."""
        with audited(req, f"{self.action}_plugin", name):
            if self.action == "disable" and name == OWN_NAME:
                raise ConflictError("nobody could enable it again: disable it in the config")
            if self.action == "enable":
                await self.kernel.enable_plugin(name)
            else:
                await self.kernel.disable_plugin(name)
        send(resp, next(one for one in self.kernel.plugins() if one.name == name))
