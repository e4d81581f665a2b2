"""The handshake of a websocket (RFC 6455, 4.2)."""

from __future__ import annotations

from collections.abc import Iterable

import falcon
from falcon.asgi import Request, Response
from websockets.datastructures import Headers
from websockets.http11 import Request as Handshake
from websockets.server import ServerProtocol

from lmx_kernel.errors import InvalidRequestError
from lmx_kernel.http.exceptions import FalconError

VERSION = "13"


def answer_handshake(
    headers: Iterable[tuple[bytes, bytes]], extra: Iterable[tuple[bytes, bytes]]
) -> bytes:
    """Return the answer that makes a connection a websocket, without subprotocol or extensions.

    :param headers: those of the request.
    :param extra: more headers of the answer.
    :raises InvalidRequestError: this is no handshake.
    :raises FalconError: one of another version.
    """
    asked = Headers(_decoded(headers))
    if asked.get_all("sec-websocket-version") not in ([], [VERSION]):
        raise upgrade_required(f"Only version {VERSION} of websockets is spoken here.")
    protocol = ServerProtocol()
    answer = protocol.accept(Handshake("/", asked))
    if answer.status_code != 101:
        raise InvalidRequestError(f"This is no valid websocket handshake: {protocol.handshake_exc}")
    for name, value in _decoded(extra):
        answer.headers[name] = value
    return answer.serialize()


def upgrade_required(message: str) -> FalconError:
    """Return the error for a client that is to ask for a websocket (RFC 9110, 15.5.22)."""
    headers = {"upgrade": "websocket", "sec-websocket-version": VERSION}
    return FalconError(falcon.HTTPError(426, description=message, headers=headers))


class WebSocketOnly:
    """The falcon resource at the path of a websocket, for requests that ask for none."""

    async def on_get(self, _req: Request, _resp: Response) -> None:
        raise upgrade_required("This path is a websocket: connect to it with ws:// or wss://.")


def _decoded(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[str, str]]:
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]
