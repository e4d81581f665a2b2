"""``/admin/logs``."""

from __future__ import annotations

import asyncio
from functools import partial

import attrs
from attrs import frozen
from falcon.asgi import Request, Response

from lmx_admin_api.log_tail import read_tail
from lmx_admin_api.parsing import read_query
from lmx_admin_api.schema import LogLines, LogsQuery
from lmx_kernel.errors import NotFoundError
from lmx_kernel.http.json_body import send
from lmx_kernel.interfaces import Kernel
from lmx_kernel.observe.log import FOLDER, LogSettings


@frozen
class Logs:
    """The end of the log."""

    kernel: Kernel

    async def on_get(self, req: Request, resp: Response) -> None:
        """Return the newest lines that fit the query."""
        query = attrs.asdict(read_query(req, LogsQuery))
        if not self.kernel.settings(LogSettings).file:
            raise NotFoundError("log.file is off: no log is kept")
        read = partial(read_tail, self.kernel.home / FOLDER, query.pop("limit"), **query)
        send(resp, LogLines(lines=await asyncio.to_thread(read)))
