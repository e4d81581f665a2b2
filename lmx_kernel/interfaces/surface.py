"""An HTTP dialect: its routes, its errors, and what it says of itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from attrs import frozen

from lmx_kernel.errors import LmxError


@frozen(kw_only=True)
class HttpRequest:
    """What an authoriser sees of a request. Header names are lower case.

    :ivar key: the name of the key that it came with, ``config`` for the config's; "" for none.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    client: str
    key: str = ""


@frozen(kw_only=True)
class Operation:
    """What one method of one route takes and gives: the source of its documentation.

    :param path: as in :meth:`ApiSurface.routes`.
    :param summary: a short sentence.
    :param body: the attrs class that the request's JSON body is parsed into.
    :param query: the attrs class whose fields are the query's parameters.
    :param result: the attrs class (or any type that JSON can show) of a successful answer.
    :param status: of a successful answer.
    :param accepted: the type of the answer with status 202, where there may be one: work goes on.
    :param streams: whether the answer is, or may be, a stream of server-sent events.
    :param event: the type of what each of these events carries as JSON.
    """

    method: str
    path: str
    summary: str
    body: Any = None
    query: type[Any] | None = None
    result: Any = None
    status: int = 200
    accepted: Any = None
    streams: bool = False
    event: Any = None


class ApiSurface(Protocol):
    """An HTTP dialect.

    :ivar name: for logs and listings.
    :ivar prefix: the path prefix that is this dialect's, such as ``/v1``; errors below it are
        rendered by this surface.
    :ivar scope: what a key must be good for to come in here, such as ``inference``; "" for any key.
    """

    name: str
    prefix: str
    scope: str

    def routes(self) -> Iterable[tuple[str, object]]:
        """Return pairs of a falcon URI template and a falcon ASGI resource."""
        ...

    def operations(self) -> Iterable[Operation]:
        """Return what each route takes and gives."""
        ...

    def render_error(self, error: LmxError) -> Mapping[str, Any]:
        """Return the JSON body for an error."""
        ...

    def example(self, url: str, model: str) -> str:
        """Return a line to try in a shell, for the server at ``url`` and one of its models."""
        ...
