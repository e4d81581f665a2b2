"""The version of what plugins build on, and which packages are made for it."""

from __future__ import annotations

from importlib.metadata import Distribution

API = (1, 0)
"""Of :mod:`lmx_kernel.api`: major and minor. A later minor only adds; a plugin that is made for
another major, or for a later minor, is not loaded.
"""

API_GROUP = "lmx.api"


def api_problem(distribution: Distribution) -> str:
    """Return why a package that is made for another version of the API cannot be used; "" if it
    can, or does not say. It says by the name of an entry point in the group :data:`API_GROUP`::

        [project.entry-points."lmx.api"]
        "1.0" = "lmx_kernel.api"
    """
    for entry in distribution.entry_points.select(group=API_GROUP):
        made_for = tuple(int(part) for part in entry.name.split(".") if part.isdecimal())
        if len(made_for) not in (1, 2) or made_for[0] != API[0] or made_for > API:
            has = ".".join(map(str, API))
            return f"it is made for version {entry.name} of LMX's API, and this one has {has}"
    return ""
