"""Entry points of installed packages, tolerant of damaged packages.

The standard library's own look-up of a group fails if the entry points of any installed package are
damaged, even of one that has nothing to do with LMX.
"""

from __future__ import annotations

import logging
from functools import cache
from importlib.metadata import Distribution, EntryPoint, distributions

from packaging.utils import canonicalize_name

log = logging.getLogger("lmx.installed")  # the standard library's: workers import no structlog


def entry_points(group: str, name: str | None = None) -> list[EntryPoint]:
    """Return the entry points of ``group``, and only those called ``name`` if that is given.

    If a package is installed twice the first one counts, since that one is imported.

    :param group: the name of a group, or a prefix that ends with a dot, for all groups below it.
    """
    found: dict[str, list[EntryPoint]] = {}
    for distribution in distributions():
        try:
            entries = [entry for entry in distribution.entry_points if _is_of(entry, group)]
            if entries:  # only then: reading a package's name takes longer than all the rest
                found.setdefault(canonicalize_name(distribution.name), entries)
        except Exception as error:  # noqa: BLE001 - parsers of damaged metadata fail in many ways
            _warn(_name(distribution), f"{type(error).__name__}: {error}")
    return [entry for entries in found.values() for entry in entries if name in (None, entry.name)]


def _is_of(entry: EntryPoint, group: str) -> bool:
    return entry.group == group or (group.endswith(".") and entry.group.startswith(group))


def _name(distribution: Distribution) -> str:
    try:
        return str(distribution.name)
    except Exception:  # noqa: BLE001 - as above
        return "without a name"


@cache
def _warn(name: str, reason: str) -> None:
    log.warning("the installed package %s cannot be read and is ignored: %s", name, reason)
