"""Where requests went."""

from __future__ import annotations

from falcon.asgi import Request, Response

from lmx_admin_api.schema import DecisionList
from lmx_kernel.http.json_body import send
from lmx_kernel.interfaces import Kernel


class Decisions:
    """The last decisions of the routers."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    async def on_get(self, _req: Request, resp: Response) -> None:
        """List them."""
        send(resp, DecisionList(decisions=tuple(self._kernel.decisions())))
