"""What installed packages register with LMX, and how each of them was installed."""

from __future__ import annotations

import json
from collections.abc import Iterable
from importlib.metadata import Distribution
from pathlib import Path
from urllib.parse import unquote

from attrs import frozen
from packaging.utils import canonicalize_name

from lmx_kernel.plugins.entry_points import entry_points

GROUP = "lmx"
"""As in :mod:`lmx_kernel.hookspecs`, which imports far more than a command needs."""
WORKER_GROUPS = f"{GROUP}."
"""All groups that workers look up."""
DIST = "dist"
"""Where the wheels of a package lie in its folder."""


@frozen(order=True)
class Registration:
    """One entry point of an installed plugin.

    :ivar group: ``lmx`` for the daemon itself; the others are looked up when a model is loaded.
    """

    group: str
    name: str
    distribution: str
    version: str


def registrations(groups: Iterable[str] = (GROUP, WORKER_GROUPS)) -> set[Registration]:
    """Return what installed packages register with LMX, as it is on disk now.

    :param groups: as in :func:`entry_points`; by default all.
    """
    entries = [entry for group in groups for entry in entry_points(group) if entry.dist]
    about = {one: one.metadata for one in {entry.dist for entry in entries} if one}  # read once
    return {
        Registration(
            entry.group, entry.name, about[entry.dist]["Name"], about[entry.dist]["Version"]
        )
        for entry in entries
        if entry.dist
    }


def package_of(name: str) -> Distribution | None:
    """Return the package that registers a plugin.

    :param name: the plugin's or the package's own.
    """
    wanted = canonicalize_name(name)
    for entry in (*entry_points(GROUP), *entry_points(WORKER_GROUPS)):
        if entry.dist and (entry.name == name or canonicalize_name(entry.dist.name) == wanted):
            return entry.dist
    return None


@frozen
class Origin:
    """Where a package was installed from.

    :ivar folder: a folder or an archive on this machine; "" for an index.
    :ivar is_editable: it is used from the folder itself, so there is nothing to install anew.
    """

    folder: str = ""
    is_editable: bool = False

    @classmethod
    def of(cls, package: Distribution) -> Origin:
        """Return what pip has noted of a package (PEP 610)."""
        try:
            noted = json.loads(package.read_text("direct_url.json") or "{}")
            url, about = noted.get("url", ""), noted.get("dir_info")
        except (ValueError, AttributeError):
            return cls()
        path = Path(unquote(url.removeprefix("file://"))) if url.startswith("file://") else None
        if path is not None and about is None and path.parent.name == DIST:
            path = path.parent.parent  # a wheel that was built from this folder
        elif about is None:
            path = None
        return cls(str(path or ""), bool(about and about.get("editable")))
