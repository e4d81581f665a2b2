"""Which dialects are served, and which of them a path belongs to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lmx_kernel.interfaces import ApiSurface


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

    def owner(self, path: str) -> ApiSurface | None:
        """Return the surface that ``path`` belongs to: the one with the longest prefix."""
        for prefix, surface in self._by_prefix:
            if path == prefix or path.startswith(prefix + "/"):
                return surface
        return None
