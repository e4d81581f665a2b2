"""``/admin/route``."""

from __future__ import annotations

from attrs import frozen
from falcon.asgi import Request, Response

from lmx_admin_api.parsing import read_body
from lmx_kernel.http.json_body import send
from lmx_kernel.interfaces import Kernel, RouteQuery

MAX_BODY_BYTES = 1024 * 1024  # there is a prompt in it


@frozen
class ExplainRoute:
    """Where a request would go."""

    kernel: Kernel

    async def on_post(self, req: Request, resp: Response) -> None:
        """Say it; nothing is generated and nothing is loaded."""
        query: RouteQuery = await read_body(req, RouteQuery, MAX_BODY_BYTES)
        send(resp, await self.kernel.explain(query.request(), query.caller()))
