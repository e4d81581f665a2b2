"""Entry points of installed packages, tolerant of damaged packages.

The standard library's own look-up of a group fails if the entry points of any installed package are
damaged, even of one that has nothing to do with LMX.
"""

from __future__ import annotations

import logging
from functools import cache
from importlib.metadata import Distribution, EntryPoint, distributions

from packaging.utils import canonicalize_name

from lmx_kernel.plugins.api_version import API_GROUP, api_problem

LISTED = "lmx"
"""The group whose packages are listed with what is wrong with them (``hookspecs.GROUP``, the import
of which would take commands long)."""
log = logging.getLogger("lmx.installed")  # the standard library's: workers import no structlog


def entry_points(group: str, name: str | None = None) -> list[EntryPoint]:
    """Return the entry points of ``group``, and only those called ``name`` if that is given.

    If a package is installed twice the first one counts, since that one is imported. A package that
    is made for another version of the API has none, but for those of :data:`LISTED`.

    :param group: the name of a group, or a prefix that ends with a dot, for all groups below it.
    """
    found: dict[str, list[EntryPoint]] = {}
    for distribution in distributions():
        try:
            entries = [entry for entry in distribution.entry_points if _is_of(entry, group)]
            if not entries:  # reading a package's name takes longer than all the rest
                continue
            problem = "" if group == LISTED else api_problem(distribution)
            if problem:
                _warn(distribution.name, problem)
            else:
                found.setdefault(canonicalize_name(distribution.name), entries)
        except Exception as error:  # noqa: BLE001 - parsers of damaged metadata fail in many ways
            _warn(_name(distribution), f"{type(error).__name__}: {error}")
    return [entry for entries in found.values() for entry in entries if name in (None, entry.name)]


def _is_of(entry: EntryPoint, group: str) -> bool:
    if group.endswith("."):
        return entry.group.startswith(group) and entry.group != API_GROUP
    return entry.group == group


def _name(distribution: Distribution) -> str:
    try:
        return str(distribution.name)
    except Exception:  # noqa: BLE001 - as above
        return "without a name"


@cache
def _warn(name: str, reason: str) -> None:
    log.warning("the installed package %s cannot be used and is ignored: %s", name, reason)
