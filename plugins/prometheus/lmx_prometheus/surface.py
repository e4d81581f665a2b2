"""The HTTP surface that Prometheus scrapes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from falcon.asgi import Request, Response
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from lmx_kernel.errors import LmxError
from lmx_kernel.interfaces import Operation

PATH = "/metrics"


class MetricsSurface:
    """Serves ``/metrics``."""

    name = "prometheus"
    prefix = PATH
    scope = "admin"  # names of models, processes and memory are not for everyone

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def routes(self) -> Iterable[tuple[str, object]]:
        """Return the one route."""
        return [(PATH, _Page(self._registry))]

    def operations(self) -> Iterable[Operation]:
        """Return its documentation: no parameters, and text."""
        summary = "Metrics in the text format of Prometheus"
        return [Operation(method="GET", path=PATH, summary=summary, result=str)]

    def render_error(self, error: LmxError) -> Mapping[str, Any]:
        """Return the error's code and message."""
        return {"error": {"code": error.code, "message": error.message}}

    def example(self, url: str, model: str) -> str:
        """Return an example for a shell."""
        return f"curl {url}{PATH}"


class _Page:
    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    async def on_get(self, _req: Request, resp: Response) -> None:
        resp.content_type = CONTENT_TYPE_PLAIN_0_0_4
        resp.data = generate_latest(self._registry)
