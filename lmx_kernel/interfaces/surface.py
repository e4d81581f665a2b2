"""API surfaces (HTTP dialects): their routes, errors and documentation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol, runtime_checkable

from attrs import frozen

from lmx_kernel.errors import LmxError
from lmx_kernel.types import DEFAULT_TERMS, Terms

NO_KEY = "no key"


@frozen(kw_only=True)
class HttpRequest:
    """An HTTP request as authorisers and routers see it. Header names are lower case.

    :ivar client: the address of the client.
    :ivar key: the name of its API key, ``config`` for the config's; "" for none.
    :ivar terms: on which the key's requests are served.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    client: str
    key: str = ""
    terms: Terms = DEFAULT_TERMS


@frozen(kw_only=True)
class Operation:
    """One method of one route, for the documentation.

    :param path: as in :meth:`ApiSurface.routes`.
    :param summary: a short sentence.
    :param body: the attrs class that the request's JSON body is parsed into.
    :param query: the attrs class whose fields are the query's parameters.
    :param result: the attrs class (or any type that JSON can express) of a successful response.
    :param status: of a successful response.
    :param accepted: the type of a response with status 202, if there may be one: work continues.
    :param streams: whether the response is, or may be, a stream.
    :param event: the type of the JSON in each of its events or lines.
    :param stream_type: the stream's content type.
    :param header: of a :class:`HeaderRouted` surface: the header that a request must have.
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
    stream_type: str = "text/event-stream"
    header: str = ""


class ApiSurface(Protocol):
    """An HTTP dialect.

    :ivar name: for logs and listings.
    :ivar prefix: the path prefix of this dialect, such as ``/v1``; errors below it are rendered by
        this surface.
    :ivar scope: the scope that a key needs here, such as ``inference``; "" for any key;
        :data:`NO_KEY` where clients without a key are answered too, which is for paths that tell
        no more than that the server is there.
    """

    name: str
    prefix: str
    scope: str

    def routes(self) -> Iterable[tuple[str, object]]:
        """Return pairs of a falcon URI template and a falcon ASGI resource."""
        ...

    def operations(self) -> Iterable[Operation]:
        """Return the documentation of each route."""
        ...

    def render_error(self, error: LmxError) -> Mapping[str, Any]:
        """Return the JSON body for an error."""
        ...

    def example(self, url: str, model: str) -> str:
        """Return an example for a shell, for the server at ``url`` and one of its models;
        "" for none.
        """
        ...


@runtime_checkable
class HeaderRouted(Protocol):
    """An HTTP dialect that answers paths outside of its prefix too, where a request has its header;
    without it, they are those of another dialect, or a 404.

    :ivar header: the header's name, in lower case.
    """

    header: str

    def header_routes(self) -> Iterable[tuple[str, object]]:
        """Return pairs of a falcon URI template and the resource for requests with the header."""
        ...
