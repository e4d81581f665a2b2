"""The falcon app: the routes of all dialects and of health."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NoReturn, TypeVar

import falcon
import falcon.asgi
from attrs import define, field
from falcon.routing import CompiledRouter

from lmx_kernel.http.exceptions import FalconError
from lmx_kernel.http.header_switch import header_switch
from lmx_kernel.http.health import Health
from lmx_kernel.http.surface_table import Served
from lmx_kernel.http.websocket_handshake import WebSocketOnly
from lmx_kernel.http.websockets import OwnedRoute
from lmx_kernel.interfaces import ApiSurface, HeaderRouted, WebSocketRoute, WebSocketRouted

_FIELD_NAME = re.compile(r"{\w+")
_Route = TypeVar("_Route")


class SurfaceError(ValueError):
    """A surface cannot be served.

    :ivar surface: its name.
    """

    def __init__(self, surface: str, message: str) -> None:
        super().__init__(message)
        self.surface = surface


class RouteClashError(SurfaceError):
    """Two surfaces want the same path; ``surface`` is the one that came second."""


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
    :ivar served: the surfaces, for a :class:`~lmx_kernel.http.surface_table.SurfaceTable`.
    """

    def __init__(self) -> None:
        super().__init__(router=HeadRouter())
        self.websockets: dict[str, OwnedRoute] = {}
        self.served = Served()


def build_app(surfaces: Iterable[ApiSurface], health: Health) -> SurfacesApp:
    """Return the app that serves ``surfaces``. It raises all errors: :class:`Shell` renders them.

    :param surfaces: of two that want the same path, the first has it.
    :raises RouteClashError: names both surfaces.
    :raises SurfaceError: the routes of one cannot be served.
    """
    surfaces, app = tuple(surfaces), SurfacesApp()
    app.req_options.strip_url_path_trailing_slash = True
    app.add_error_handler(Exception, _raise)
    app.add_error_handler(falcon.HTTPError, _raise_out_of_falcon)
    routes = [("health", path, resource) for path, resource in health.resources().items()]
    for surface in surfaces:
        routes += [(surface.name, *route) for route in _asked(surface, "routes", _pair)]
    _check_prefixes(surfaces)
    by_header = _header_routes(surfaces)
    headers = [
        (header, shared.template, name)
        for shared in by_header.values()
        for header, name in shared.names.items()
    ]
    owners: dict[str, str] = {}
    for name, template, resource in routes:
        shape = _shape(template)
        if shape in owners:
            text = f"{template} is a path of both {owners[shape]} and {name}."
            raise RouteClashError(name, text)
        owners[shape] = name
        shared = by_header.pop(shape, None)
        served = resource if shared is None else header_switch(resource, shared.resources)
        _add(app, name, template, served, owners)
    for shape, shared in by_header.items():
        owners[shape] = next(iter(shared.names.values()))
        _add(app, owners[shape], shared.template, header_switch(None, shared.resources), owners)
    _add_websockets(app, surfaces, owners)
    sockets = {owned.route.path: owned.surface for owned in app.websockets.values()}
    app.served = Served(surfaces, sockets, headers)
    return app


def _add_websockets(
    app: SurfacesApp, surfaces: Iterable[ApiSurface], owners: dict[str, str]
) -> None:
    plain = frozenset(owners)
    for path, owned in _websocket_routes(surfaces):
        if "{" in path:
            raise SurfaceError(
                owned.surface, f"{path} of {owned.surface}: a websocket's path has no fields."
            )
        shape = _shape(path)
        owner = owners.setdefault(shape, owned.surface)
        if owner != owned.surface or shape in app.websockets:
            text = f"{path} is a path of both {owner} and {owned.surface}."
            raise RouteClashError(owned.surface, text)
        app.websockets[shape] = owned
        if shape not in plain:
            _add(app, owned.surface, path, WebSocketOnly(), owners)


def _websocket_routes(surfaces: Iterable[ApiSurface]) -> Iterator[tuple[str, OwnedRoute]]:
    for surface in surfaces:
        if isinstance(surface, WebSocketRouted):
            for path, route in _asked(surface, "websocket_routes", _with_path):
                yield path, OwnedRoute(surface.name, route)


@define
class _Shared:
    """A path that dialects answer by the headers of a request.

    :ivar template: as the first of them has it.
    :ivar resources: by header.
    :ivar names: of the dialects, by header.
    """

    template: str
    resources: dict[str, object] = field(factory=dict)
    names: dict[str, str] = field(factory=dict)


def _check_prefixes(surfaces: Iterable[ApiSurface]) -> None:
    """Refuse two dialects with one prefix: the scope and the errors of one would hold for paths of
    the other. Prefixes may nest.

    :raises RouteClashError: names both.
    """
    owners: dict[str, str] = {}
    for surface in surfaces:
        prefix = surface.prefix.rstrip("/")
        if prefix in owners:
            both = f"{owners[prefix]} and {surface.name}"
            raise RouteClashError(surface.name, f"{surface.prefix} is the prefix of both {both}.")
        owners[prefix] = surface.name


def _asked(surface: ApiSurface, method: str, read: Callable[[Any], _Route]) -> list[_Route]:
    """Return what a method of a surface yields, each as ``read`` takes it.

    :raises SurfaceError: it fails, or yields something else.
    """
    try:
        return [read(route) for route in getattr(surface, method)()]
    # A plugin's: it may fail in any way.
    except Exception as error:
        raise SurfaceError(surface.name, f"{method}() of {surface.name}: {error}") from error


def _with_path(route: Any) -> tuple[str, WebSocketRoute]:
    return route.path, route


def _pair(route: Any) -> tuple[str, object]:
    template, resource = route
    return template, resource


def _shape(template: str) -> str:
    """Return a template without the names of its fields."""
    return _FIELD_NAME.sub("{", template.rstrip("/"))


def _header_routes(surfaces: Iterable[ApiSurface]) -> dict[str, _Shared]:
    """Return by shape the paths that dialects answer by header.

    :raises RouteClashError: two dialects have the same header for a path.
    """
    found: dict[str, _Shared] = {}
    for surface in surfaces:
        if not isinstance(surface, HeaderRouted):
            continue
        name, header = surface.name, surface.header
        for template, resource in _asked(surface, "header_routes", _pair):
            shared = found.setdefault(_shape(template), _Shared(template))
            if header in shared.names:
                both = f"{shared.names[header]} and {name}"
                raise RouteClashError(name, f"{template} with {header} is a path of both {both}.")
            shared.resources[header], shared.names[header] = resource, name
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
    except TypeError as exc:
        raise SurfaceError(name, f"{template} of {name} cannot be served: {exc}") from exc
    except ValueError as exc:
        static, _, _ = template.partition("{")
        others = sorted({owner for shape, owner in owners.items() if shape.startswith(static)})
        if others == [name]:
            raise SurfaceError(name, f"{template} of {name} cannot be served: {exc}") from exc
        text = f"{template} of {name} clashes ({', '.join(others)}): {exc}"
        raise RouteClashError(name, text) from exc


async def _raise(_req: Any, _resp: Any, error: Exception, _params: Any) -> NoReturn:
    raise error


async def _raise_out_of_falcon(
    _req: Any, _resp: Any, error: falcon.HTTPError, _params: Any
) -> NoReturn:
    raise FalconError(error) from error
