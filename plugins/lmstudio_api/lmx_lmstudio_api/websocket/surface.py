"""The websocket protocol as the kernel's HTTP server sees it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from lmx_kernel.errors import LmxError
from lmx_kernel.interfaces import Kernel, Operation, WebSocket, WebSocketRoute
from lmx_lmstudio_api.settings import LMStudioSettings
from lmx_lmstudio_api.v1.errors import error_object
from lmx_lmstudio_api.websocket.diagnostics import Diagnostics
from lmx_lmstudio_api.websocket.files import FILES
from lmx_lmstudio_api.websocket.model_namespaces import ModelNamespaces
from lmx_lmstudio_api.websocket.models import Models
from lmx_lmstudio_api.websocket.namespace import Namespace
from lmx_lmstudio_api.websocket.repository import Repository
from lmx_lmstudio_api.websocket.session import Session
from lmx_lmstudio_api.websocket.system import System

EMPTY = ("/plugins", "/runtime", "/retrieval")
"""Namespaces without anything that is served: a client is told so, and not just disconnected."""

Make = Callable[[], Namespace]


class LMStudioWebSockets:
    """The protocol of LM Studio's SDKs: a path for each namespace. The API key comes in the first
    message of a socket.
    """

    name = "lmstudio_websocket"
    prefix = "/llm"
    scope = "inference"

    def __init__(self, kernel: Kernel, settings: LMStudioSettings) -> None:
        self._kernel = kernel
        self._heartbeat_s = settings.heartbeat_s

    def routes(self) -> Iterable[tuple[str, object]]:
        """Return none: all paths are websockets."""
        return []

    def websocket_routes(self) -> Iterable[WebSocketRoute]:
        """Return a path for each namespace."""
        kernel, heartbeat_s = self._kernel, self._heartbeat_s
        models = ModelNamespaces(kernel, Models(kernel), heartbeat_s)
        fixed = [
            FILES,
            System(kernel).namespace,
            Repository(kernel, heartbeat_s).namespace,
            Diagnostics(kernel).namespace,
            *map(Namespace, EMPTY),
        ]
        makers: dict[str, Make] = {"/llm": models.llm, "/embedding": models.embedding}
        makers |= {one.path: partial(_same, one) for one in fixed}
        return [
            WebSocketRoute(path=path, handler=partial(_serve, make), authorises_later=True)
            for path, make in makers.items()
        ]

    def operations(self) -> Iterable[Operation]:
        """Return none: what documents HTTP has no word for websockets."""
        return []

    def render_error(self, error: LmxError) -> Mapping[str, Any]:
        """Return the body of a refused handshake."""
        return error_object(error)

    def example(self, url: str, model: str) -> str:
        """Return "": the SDKs speak this, not shells."""
        return ""


def _same(namespace: Namespace) -> Namespace:
    return namespace


async def _serve(make: Make, socket: WebSocket) -> None:
    await Session(socket, make()).run()
