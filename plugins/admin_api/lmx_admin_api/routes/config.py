"""``/admin/config``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from attrs import frozen
from falcon.asgi import Request, Response

from lmx_admin_api.parsing import read_body
from lmx_admin_api.schema import ConfigView
from lmx_kernel.dialect.audit import audited
from lmx_kernel.http.json_body import send
from lmx_kernel.interfaces import Kernel

Values = dict[str, dict[str, Any]]


@frozen
class Config:
    """The values in force."""

    kernel: Kernel

    async def on_get(self, _req: Request, resp: Response) -> None:
        """Show them."""
        send(resp, view(self.kernel))

    async def on_patch(self, req: Request, resp: Response) -> None:
        """Change some until the next start, all or none."""
        wanted: Values = await read_body(req, Values)
        with audited(req, "configure", " ".join(f"{s}.{key}" for s in wanted for key in wanted[s])):
            self.kernel.configure(wanted)
        send(resp, view(self.kernel))


@frozen
class ReloadConfig:
    """Reads the file again."""

    kernel: Kernel

    async def on_post(self, req: Request, resp: Response) -> None:
        """Put in force what may change while the daemon runs."""
        with audited(req, "reload", "config"):
            waiting = await self.kernel.reload_config()
        send(resp, view(self.kernel, waiting))


def view(kernel: Kernel, needs_restart: Sequence[str] = ()) -> ConfigView:
    """Return the values in force."""
    live = {section: tuple(keys) for section, keys in kernel.config(only_live=True).items()}
    return ConfigView(values=kernel.config(), live=live, needs_restart=tuple(needs_restart))
