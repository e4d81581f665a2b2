"""``/lmstudio-greeting``: how clients find out that this API is served at an address."""

from __future__ import annotations

from typing import TypedDict

from falcon.asgi import Request, Response

from lmx_kernel.http.json_body import send


class GreetingObject(TypedDict):
    """Says that this API is served."""

    lmstudio: bool


class Greeting:
    """Says that this API is served."""

    async def on_get(self, req: Request, resp: Response) -> None:
        """Say it."""
        found: GreetingObject = {"lmstudio": True}
        send(resp, found)
