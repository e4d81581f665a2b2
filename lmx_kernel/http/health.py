"""The paths that tell how the server is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from attrs import frozen
from falcon.asgi import Request, Response

from lmx_kernel.http.json_body import send


@frozen(kw_only=True)
class Health:
    """What the health paths tell.

    :param name: the product's.
    :param version: the product's.
    :param docs: where a human reads on.
    :param is_ready: whether requests for models can be served now.
    :param status: everything worth knowing, JSON-like; only for those who are authorised.
    """

    name: str
    version: str
    docs: str
    is_ready: Callable[[], bool]
    status: Callable[[], Mapping[str, Any]]

    def resources(self) -> dict[str, object]:
        """Return falcon resources by path."""
        greeting = {"name": self.name, "version": self.version, "docs": self.docs}
        alive = _Page(lambda: (200, {"status": "ok"}))
        return {
            "/": _Page(lambda: (200, greeting)),
            "/health": alive,
            "/health/live": alive,
            "/health/ready": _Page(self._readiness),
            "/health/status": _Page(lambda: (200, self.status())),
        }

    def _readiness(self) -> tuple[int, Mapping[str, Any]]:
        return (200, {"status": "ready"}) if self.is_ready() else (503, {"status": "not_ready"})


class _Page:
    def __init__(self, content: Callable[[], tuple[int, Mapping[str, Any]]]) -> None:
        self._content = content

    async def on_get(self, _req: Request, resp: Response) -> None:
        status, page = self._content()
        send(resp, page, status)
