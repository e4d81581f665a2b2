"""``/admin/status``."""

from __future__ import annotations

import platform

import attrs
from falcon.asgi import Request, Response

from lmx_admin_api.schema import PluginVersion, Status
from lmx_kernel.http.json_body import send
from lmx_kernel.http.settings import ServerSettings
from lmx_kernel.interfaces import Kernel


class StatusPage:
    """The daemon at a glance."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._python, self._platform = platform.python_version(), platform.platform()

    async def on_get(self, _req: Request, resp: Response) -> None:
        """Tell all of it."""
        active = [one for one in self._kernel.plugins() if one.is_in_use]
        server = self._kernel.settings(ServerSettings)
        status = Status(
            **attrs.asdict(self._kernel.status(), recurse=False),
            addresses=tuple(f"{server.scheme}://{one}" for one in server.addresses),
            python=self._python,
            platform=self._platform,
            plugins=tuple(
                PluginVersion(name=one.name, distribution=one.distribution, version=one.version)
                for one in active
            ),
        )
        send(resp, status)
