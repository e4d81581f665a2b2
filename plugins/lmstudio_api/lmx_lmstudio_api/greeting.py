"""``/lmstudio-greeting``: how clients find out that this API is served at an address."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypedDict

from falcon.asgi import Request, Response

from lmx_kernel.dialect.error_object import default_error_body
from lmx_kernel.errors import LmxError
from lmx_kernel.http.json_body import send
from lmx_kernel.interfaces import NO_KEY, Operation
from lmx_lmstudio_api.settings import GREETING_PATH


class GreetingObject(TypedDict):
    """Says that this API is served."""

    lmstudio: bool


class Greeting:
    """Says that LM Studio's API is served. Its SDKs ask before they have shown a key, so this
    needs none.
    """

    name = "lmstudio_greeting"
    prefix = GREETING_PATH
    scope = NO_KEY

    async def on_get(self, req: Request, resp: Response) -> None:
        """Say it."""
        found: GreetingObject = {"lmstudio": True}
        send(resp, found)

    def routes(self) -> Iterable[tuple[str, object]]:
        """Return its only path."""
        return [(GREETING_PATH, self)]

    def operations(self) -> Iterable[Operation]:
        """Return what that gives."""
        summary = "Say that LM Studio's API is served here"
        return [Operation(method="GET", path=GREETING_PATH, summary=summary, result=GreetingObject)]

    def render_error(self, error: LmxError) -> Mapping[str, Any]:
        """Return an error body in the kernel's default shape."""
        return default_error_body(error)

    def example(self, url: str, model: str) -> str:
        """Return "": there is nothing to ask."""
        return ""
