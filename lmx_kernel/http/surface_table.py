"""Which dialects are served, and which of them a path belongs to."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from lmx_kernel.interfaces import ApiSurface, HeaderRouted, WebSocketRouted

_FIELD = re.compile(r"{[^}]*}")


class SurfaceTable:
    """The dialects that are served at the moment.

    :ivar surfaces: in the order in which they were given; replaced as a whole.
    """

    def __init__(self, surfaces: Iterable[ApiSurface] = ()) -> None:
        self.surfaces: Sequence[ApiSurface] = ()
        self._by_prefix: list[tuple[str, ApiSurface]] = []
        self.replace(surfaces)

    def replace(self, surfaces: Iterable[ApiSurface]) -> None:
        """Serve these dialects and no others."""
        self.surfaces = tuple(surfaces)
        longest_first = sorted(self.surfaces, key=lambda one: (-len(one.prefix), one.name))
        self._by_prefix = [(surface.prefix.rstrip("/"), surface) for surface in longest_first]
        self._by_websocket: dict[str, ApiSurface] = {
            route.path.rstrip("/"): surface
            for surface in self.surfaces
            if isinstance(surface, WebSocketRouted)
            for route in surface.websocket_routes()
        }
        self._by_header = [
            (surface.header, _pattern(surface), surface)
            for surface in self.surfaces
            if isinstance(surface, HeaderRouted)
        ]

    def owner(self, path: str) -> ApiSurface | None:
        """Return the surface that ``path`` belongs to: the one that has it as a websocket, else the
        one with the longest prefix.
        """
        if (by_websocket := self._by_websocket.get(path)) is not None:
            return by_websocket
        for prefix, surface in self._by_prefix:
            if path == prefix or path.startswith(prefix + "/"):
                return surface
        return None

    def answering(self, path: str, headers: Mapping[str, str]) -> ApiSurface | None:
        """Return the surface whose shape an answer has: the owner of ``path``, unless the request
        has the header of another one that answers there.
        """
        for header, pattern, surface in self._by_header:
            if header in headers and pattern.fullmatch(path):
                return surface
        return self.owner(path)


def _pattern(surface: HeaderRouted) -> re.Pattern[str]:
    """Return what matches the paths that a surface shares with others."""
    templates = [template for template, _ in surface.header_routes()]
    parts = [".+".join(map(re.escape, _FIELD.split(template))) for template in templates]
    return re.compile("|".join(parts))
