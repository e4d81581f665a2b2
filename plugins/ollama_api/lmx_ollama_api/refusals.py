"""Paths of this dialect that LMX does not serve, and says so."""

from __future__ import annotations

from attrs import frozen
from falcon.asgi import Request, Response

from lmx_kernel.errors import InvalidRequestError, NotFoundError

NO_BLOBS = "files are not uploaded: put models into a model folder, or pull them from the hub"
REASONS = {
    "/api/create": "models are not made from others: put options and system messages into requests",
    "/api/copy": "models are not copied: one model serves requests with any options",
    "/api/push": "models are not uploaded",
}


@frozen
class Refusal:
    """Refuses."""

    reason: str

    async def on_post(self, req: Request, resp: Response, **_: str) -> None:
        """Say why.

        :raises InvalidRequestError: always.
        """
        raise InvalidRequestError(self.reason)


class Blobs(Refusal):
    """Refuses files; none is there."""

    async def on_head(self, req: Request, resp: Response, **_: str) -> None:
        """Say that there is none.

        :raises NotFoundError: always.
        """
        raise NotFoundError("there is no such file")
