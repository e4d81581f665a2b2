"""Which architectures there are: mlx-lm's own, and those that installed packages add.

Names only; nothing is imported here. They are looked up afresh each time, so a package that is
installed while the daemon runs is seen.
"""

from __future__ import annotations

import ast
import importlib
import os
import re
import sys
import time
from functools import lru_cache
from importlib.metadata import EntryPoint
from importlib.util import find_spec
from pathlib import Path

from lmx_kernel.errors import ModelUnusableError
from lmx_kernel.plugins.entry_points import entry_points

SETTLED_NS = 2_000_000_000
ARGUMENTS = re.compile(rb"\bModelArgs\b")  # what no helper beside the architectures has
GROUP = "lmx.mlx.architectures"
"""Entry points: the name is a ``model_type``, the value a module with Model and ModelArgs."""


def is_known(architecture: str) -> bool:
    """Return whether some installed package has ``architecture``."""
    return architecture in library_names() or architecture in plugin_names()


def find_plugin(architecture: str) -> EntryPoint | None:
    """Return the entry point that adds ``architecture``, or None.

    A plugin goes before mlx-lm: whoever installs one for a known name means it.

    :raises ModelUnusableError: two packages add it.
    """
    found = find_plugins(architecture)
    if len(found) > 1:
        names = " and ".join(sorted(map(distribution, found)))
        raise ModelUnusableError(f"architecture `{architecture}` is added by both {names}")
    return found[0] if found else None


def find_plugins(architecture: str) -> list[EntryPoint]:
    """Return all entry points that add ``architecture``."""
    importlib.invalidate_caches()
    return entry_points(GROUP, architecture)


def distribution(point: EntryPoint) -> str:
    """Return the name of the package that an entry point belongs to."""
    return point.dist.name if point.dist is not None else point.value


def library_names() -> frozenset[str]:
    """Return the names that mlx-lm knows: a module each, and aliases."""
    package = _library(_installed())
    return _names(package, _changed_ns(f"{package}/utils.py")) if package else frozenset()


def plugin_names() -> frozenset[str]:
    """Return the names that installed packages add."""
    installed = _installed()
    if max(installed) > time.time_ns() - SETTLED_NS:  # an installation may be half done
        _plugin_names.cache_clear()
    return _plugin_names(installed)


@lru_cache(maxsize=1)
def _library(installed: tuple[int, ...]) -> Path | None:
    """Return where mlx-lm lies, without importing it."""
    importlib.invalidate_caches()
    spec = find_spec("mlx_lm")
    return (
        Path(spec.submodule_search_locations[0])
        if spec and spec.submodule_search_locations
        else None
    )


def _installed() -> tuple[int, ...]:
    """Return what changes when a package is installed or removed: the times of its folders."""
    return tuple(map(_changed_ns, sys.path))


def _changed_ns(folder: str) -> int:
    try:
        return os.stat(folder).st_mtime_ns  # noqa: PTH116 - called for every model of every scan
    except OSError:
        return 0


@lru_cache(maxsize=1)
def _plugin_names(installed: tuple[int, ...]) -> frozenset[str]:
    """Return the names that packages add; looking through all of them takes 10 ms."""
    importlib.invalidate_caches()
    return frozenset(point.name for point in entry_points(GROUP))


@lru_cache(maxsize=1)
def _names(package: Path, stamp_ns: int) -> frozenset[str]:
    """Read the names from the sources, since importing them is slow; ``stamp_ns`` is theirs."""
    files = (package / "models").glob("[!_]*.py")
    modules = {file.stem for file in files if ARGUMENTS.search(file.read_bytes())}
    for node in ast.parse((package / "utils.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "MODEL_REMAPPING":
            modules |= set(ast.literal_eval(node.value))
    return frozenset(modules)
