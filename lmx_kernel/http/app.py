"""The falcon app: the routes of all dialects and of health."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

import falcon
import falcon.asgi
from falcon.routing import CompiledRouter

from lmx_kernel.http.exceptions import FalconError
from lmx_kernel.http.header_switch import header_switch
from lmx_kernel.http.health import Health
from lmx_kernel.http.websocket_handshake import WebSocketOnly
from lmx_kernel.http.websockets import OwnedRoute, websocket_routes
from lmx_kernel.interfaces import ApiSurface, HeaderRouted

_FIELD_NAME = re.compile(r"{\w+")


class RouteClashError(ValueError):
    """Two surfaces want the same path."""


class HeadRouter(CompiledRouter):
    """Answers HEAD wherever it answers GET (RFC 9110, 9.1). The body is left out by falcon, which
    does not begin a stream either.
    """

    def map_http_methods(self, resource: object, **kwargs: Any) -> dict[str, Any]:
        """Return the methods that a resource takes, with what handles each."""
        methods: dict[str, Any] = dict(super().map_http_methods(resource, **kwargs))
        if "GET" in methods:
            methods.setdefault("HEAD", methods["GET"])
        return methods


class SurfacesApp(falcon.asgi.App[Any, Any]):
    """The app of some surfaces.

    :ivar websockets: their websocket routes by path, which the shell serves.
    """

    def __init__(self) -> None:
        super().__init__(router=HeadRouter())
        self.websockets: dict[str, OwnedRoute] = {}


def build_app(surfaces: Iterable[ApiSurface], health: Health) -> SurfacesApp:
    """Return the app that serves ``surfaces``. It raises all errors: :class:`Shell` renders them.

    :raises RouteClashError: names both surfaces.
    """
    app = SurfacesApp()
    app.req_options.strip_url_path_trailing_slash = True
    app.add_error_handler(Exception, _raise)
    app.add_error_handler(falcon.HTTPError, _raise_out_of_falcon)
    routes = [("health", path, resource) for path, resource in health.resources().items()]
    surfaces = sorted(surfaces, key=lambda surface: surface.name)
    for surface in surfaces:
        routes += [(surface.name, template, resource) for template, resource in surface.routes()]
    by_header = _header_routes(surfaces)
    owners: dict[str, str] = {}
    for name, template, resource in routes:
        shape = _shape(template)
        if shape in owners:
            raise RouteClashError(f"{template} is a path of both {owners[shape]} and {name}.")
        owners[shape] = name
        served = header_switch(resource, by_header[shape]) if shape in by_header else resource
        _add(app, name, template, served, owners)
    _add_websockets(app, surfaces, owners)
    return app


def _add_websockets(
    app: SurfacesApp, surfaces: Iterable[ApiSurface], owners: dict[str, str]
) -> None:
    plain = frozenset(owners)
    for path, owned in websocket_routes(surfaces):
        if "{" in path:
            raise RouteClashError(f"{path} of {owned.surface}: a websocket's path has no fields.")
        shape = _shape(path)
        owner = owners.setdefault(shape, owned.surface)
        if owner != owned.surface or shape in app.websockets:
            raise RouteClashError(f"{path} is a path of both {owner} and {owned.surface}.")
        app.websockets[shape] = owned
        if shape not in plain:
            _add(app, owned.surface, path, WebSocketOnly(), owners)


def _shape(template: str) -> str:
    """Return a template without the names of its fields."""
    return _FIELD_NAME.sub("{", template.rstrip("/"))


def _header_routes(surfaces: Iterable[ApiSurface]) -> Mapping[str, Mapping[str, object]]:
    """Return by shape and header the resources that take a path's requests with that header."""
    found: defaultdict[str, dict[str, object]] = defaultdict(dict)
    for surface in surfaces:
        if isinstance(surface, HeaderRouted):
            for template, resource in surface.header_routes():
                found[_shape(template)][surface.header] = resource
    return found


def _add(
    app: falcon.asgi.App[Any, Any],
    name: str,
    template: str,
    resource: object,
    owners: dict[str, str],
) -> None:
    try:
        app.add_route(template, resource)
    except ValueError as exc:
        static, _, _ = template.partition("{")
        others = sorted({owner for shape, owner in owners.items() if shape.startswith(static)})
        raise RouteClashError(f"{template} of {name} clashes ({', '.join(others)}): {exc}") from exc


async def _raise(_req: Any, _resp: Any, error: Exception, _params: Any) -> NoReturn:
    raise error


async def _raise_out_of_falcon(
    _req: Any, _resp: Any, error: falcon.HTTPError, _params: Any
) -> NoReturn:
    raise FalconError(error) from error
