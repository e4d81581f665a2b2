"""Entry points of installed packages, tolerant of damaged packages.

The standard library's own look-up of a group fails if the entry points of any installed package are
damaged, even of one that has nothing to do with LMX.
"""

from __future__ import annotations

import logging
from functools import cache
from importlib.metadata import Distribution, EntryPoint, distributions

from packaging.utils import canonicalize_name

from lmx_kernel.hookspecs import API, API_GROUP, GROUP

log = logging.getLogger("lmx.installed")  # the standard library's: workers import no structlog


def entry_points(group: str, name: str | None = None) -> list[EntryPoint]:
    """Return the entry points of ``group``, and only those called ``name`` if that is given.

    If a package is installed twice the first one counts, since that one is imported. A package that
    is made for another version of the API has none, but for those of :data:`GROUP`: the list of
    plugins says why they are not loaded.

    :param group: the name of a group, or a prefix that ends with a dot, for all groups below it.
    """
    found: dict[str, list[EntryPoint]] = {}
    for distribution in distributions():
        try:
            entries = [entry for entry in distribution.entry_points if _is_of(entry, group)]
            if not entries:  # reading a package's name takes longer than all the rest
                continue
            problem = "" if group == GROUP else api_problem(distribution)
            if problem:
                _warn(distribution.name, problem)
            else:
                found.setdefault(canonicalize_name(distribution.name), entries)
        except Exception as error:  # noqa: BLE001 - parsers of damaged metadata fail in many ways
            _warn(_name(distribution), f"{type(error).__name__}: {error}")
    return [entry for entries in found.values() for entry in entries if name in (None, entry.name)]


def api_problem(distribution: Distribution) -> str:
    """Return why a package that is made for another version of the API cannot be used; "" if it
    can, or does not say. It says by the name of an entry point in the group ``lmx.api``::

        [project.entry-points."lmx.api"]
        "1.0" = "lmx_kernel.api"
    """
    for entry in distribution.entry_points.select(group=API_GROUP):
        made_for = tuple(int(part) for part in entry.name.split(".") if part.isdecimal())
        if len(made_for) not in (1, 2) or made_for[0] != API[0] or made_for > API:
            has = ".".join(map(str, API))
            return f"it is made for version {entry.name} of LMX's API, and this one has {has}"
    return ""


def _is_of(entry: EntryPoint, group: str) -> bool:
    return entry.group == group or (group.endswith(".") and entry.group.startswith(group))


def _name(distribution: Distribution) -> str:
    try:
        return str(distribution.name)
    except Exception:  # noqa: BLE001 - as above
        return "without a name"


@cache
def _warn(name: str, reason: str) -> None:
    log.warning("the installed package %s cannot be used and is ignored: %s", name, reason)
