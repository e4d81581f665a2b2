"""The folder of a package's metadata, and when it changed. Nothing in it is read for that."""

from __future__ import annotations

from importlib.metadata import Distribution
from pathlib import Path


def folder_of(package: Distribution) -> Path | None:
    """Return the folder of a package's metadata; None if that is in no folder."""
    folder = getattr(package, "_path", None)  # the standard library has no public name for it
    return folder if isinstance(folder, Path) else None


def changed_at(folder: Path | None) -> float:
    """Return when a package was installed, in seconds since the epoch; 0 if that is not known."""
    try:
        return folder.stat().st_mtime if folder is not None else 0.0
    except OSError:
        return 0.0
