"""Which plugins authorise requests, also those that cannot be loaded."""

from __future__ import annotations

import importlib.util
from contextlib import suppress
from pathlib import Path

import structlog

HOOK = "lmx_authorize"
log = structlog.get_logger(__name__)


class AbsentAuthorisers:
    """The plugins that authorise requests and are installed, but not active. True if there are any:
    then every request must be refused.
    """

    def __init__(self) -> None:
        self._modules: dict[str, str] = {}
        self._absent: set[str] = set()

    def __bool__(self) -> bool:
        return bool(self._absent)

    def found(self, name: str, module: str) -> None:
        """Note a plugin that is loaded now.

        :param module: its import path.
        """
        self._modules[name] = module
        self._absent.discard(name)

    def lost(self, name: str) -> None:
        """Note that a plugin is not active, though nobody disabled it."""
        if may_authorise(self._modules[name]):
            self._absent.add(name)
            log.error("authorizer_absent", plugin=name)


def may_authorise(module: str) -> bool:
    """Return whether the source of a plugin names the hook :data:`HOOK`. Nothing of it is imported.

    :param module: its import path.
    """
    spec = None
    with suppress(ImportError, ValueError):
        spec = importlib.util.find_spec(module.partition(".")[0])
    if spec is None:
        return False
    folders = spec.submodule_search_locations or ()
    files = [file for folder in folders for file in Path(folder).rglob("*.py")]
    files += [Path(spec.origin)] if spec.origin and not folders else []
    return any(HOOK in _text(file) for file in files)


def _text(file: Path) -> str:
    try:
        return file.read_text(errors="replace")
    except OSError:
        return ""
