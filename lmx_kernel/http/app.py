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
from lmx_kernel.interfaces import ApiSurface, HeaderRouted

_FIELD_NAME = re.compile(r"{\w+")


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


def build_app(surfaces: Iterable[ApiSurface], health: Health) -> falcon.asgi.App[Any, Any]:
    """Return the app that serves ``surfaces``. It raises all errors: :class:`Shell` renders them.

    :param surfaces: of two that want the same path, the first has it.
    :raises RouteClashError: names both surfaces.
    :raises SurfaceError: the routes of one cannot be served.
    """
    app = falcon.asgi.App(router=HeadRouter())
    app.req_options.strip_url_path_trailing_slash = True
    app.add_error_handler(Exception, _raise)
    app.add_error_handler(falcon.HTTPError, _raise_out_of_falcon)
    routes = [("health", path, resource) for path, resource in health.resources().items()]
    surfaces = tuple(surfaces)
    for surface in surfaces:
        routes += _routes_of(surface)
    by_header = _header_routes(surfaces)
    owners: dict[str, str] = {}
    for name, template, resource in routes:
        shape = _shape(template)
        if shape in owners:
            text = f"{template} is a path of both {owners[shape]} and {name}."
            raise RouteClashError(name, text)
        owners[shape] = name
        served = header_switch(resource, by_header[shape]) if shape in by_header else resource
        _add(app, name, template, served, owners)
    return app


def _routes_of(surface: ApiSurface) -> list[tuple[str, str, object]]:
    try:
        return [(surface.name, template, resource) for template, resource in surface.routes()]
    # A plugin's: it may fail in any way.
    except Exception as error:
        raise SurfaceError(surface.name, f"routes() of {surface.name}: {error}") from error


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
