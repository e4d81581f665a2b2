"""Makes Python import the modules of a plugin anew, as they are on disk now."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable
from importlib.metadata import Distribution
from pathlib import PurePath

KEPT = ("lmx_kernel", "__main__")


def drop_modules(module: str, package: Distribution | None) -> None:
    """Forget the imported modules of a plugin. What runs keeps those that it has.

    :param module: the import path of the plugin.
    :param package: that it is in; its other modules are dropped too.
    """
    roots = {_root(module), *_modules_of(package)} - {*KEPT, ""}
    for name in list(sys.modules):
        if any(name == root or name.startswith(f"{root}.") for root in roots):
            del sys.modules[name]
    importlib.invalidate_caches()


def _root(module: str) -> str:
    """Return the outermost package of a module that is no namespace, which others may share."""
    parts = module.split(".")
    for end in range(1, len(parts) + 1):
        name = ".".join(parts[:end])
        if getattr(sys.modules.get(name), "__file__", None):
            return name
    return module


def _modules_of(package: Distribution | None) -> Iterable[str]:
    """Yield the modules and packages that stand directly where a package is installed."""
    for file in (package.files or ()) if package is not None else ():
        path = PurePath(file)
        if path.suffix != ".py":
            continue
        if len(path.parts) == 1 and not path.name.startswith("__editable__"):
            yield path.stem
        elif len(path.parts) == 2 and path.name == "__init__.py":
            yield path.parts[0]
