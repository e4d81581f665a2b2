"""Which dialects are served, and which of them a path belongs to."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from attrs import field, frozen

from lmx_kernel.interfaces import ApiSurface

_FIELD = re.compile(r"{[^}]*}")


@frozen
class Served:
    """Dialects that are served, with what they said of their routes: nobody asks them again.

    :ivar websockets: the paths of websockets, and the name of the surface that has each.
    :ivar by_header: the paths that a header decides on: header, path and name of the surface.
    """

    surfaces: Sequence[ApiSurface] = ()
    websockets: Mapping[str, str] = field(factory=dict)
    by_header: Sequence[tuple[str, str, str]] = ()


class SurfaceTable:
    """The dialects that are served at the moment.

    :param surfaces: those of the start, known by their prefixes alone.
    :ivar surfaces: in the order in which they were given; replaced as a whole.
    """

    def __init__(self, surfaces: Iterable[ApiSurface] = ()) -> None:
        self.replace(Served(tuple(surfaces)))

    def replace(self, served: Served) -> None:
        """Serve these dialects and no others."""
        self.surfaces: Sequence[ApiSurface] = served.surfaces
        by_name = {surface.name: surface for surface in self.surfaces}
        longest_first = sorted(self.surfaces, key=lambda one: (-len(one.prefix), one.name))
        self._by_prefix = [(surface.prefix.rstrip("/"), surface) for surface in longest_first]
        self._by_websocket = {
            path.rstrip("/"): by_name[name] for path, name in served.websockets.items()
        }
        self._by_header = [
            (header, _pattern(template), by_name[name])
            for header, template, name in served.by_header
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
            if headers.get(header) and pattern.fullmatch(path):
                return surface
        return self.owner(path)


def _pattern(template: str) -> re.Pattern[str]:
    """Return what matches the paths of a template."""
    return re.compile(".+".join(map(re.escape, _FIELD.split(template))))
