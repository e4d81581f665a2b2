"""Walks trees of folders fast, visits each folder once, and skips what cannot be read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from lmx_kernel.types import Location

DEPTH = 4
"""How many levels below its root a tree is searched."""

UNFINISHED = (".incomplete", ".part")


class Tree:
    """Remembers visited folders, so that links make no loop and no folder is found twice."""

    def __init__(self) -> None:
        self._entered: set[tuple[int, int]] = set()

    def walk(self, folder: Path, name: str = "", depth: int = DEPTH) -> Iterator[Location]:
        """Yield every folder that directly holds files, from ``folder`` downwards.

        :param name: the name of ``folder``; those in it are called ``name/theirs``.
        """
        if not self._enter(folder):
            return
        folders, files = contents(folder)
        if files:
            yield Location(name, folder, tuple(files))
        for inner in folders if depth else ():
            yield from self.walk(folder / inner, f"{name}/{inner}".lstrip("/"), depth - 1)

    def _enter(self, folder: Path) -> bool:
        try:
            status = folder.stat()
        except OSError:
            return False
        identity = (status.st_dev, status.st_ino)
        is_new = identity not in self._entered
        self._entered.add(identity)
        return is_new


def contents(folder: Path) -> tuple[list[str], list[str]]:
    """Return the names of the folders and the files in ``folder``; none if it cannot be read."""
    folders: list[str] = []
    files: list[str] = []
    for entry in _entries(folder):
        with suppress(OSError):  # a link to itself
            if entry.is_dir():
                folders.append(entry.name)
            elif entry.is_file():
                files.append(entry.name)
    return folders, files


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """Return entries that may belong to a model, links last, so that a folder gets its own name."""
    try:
        with os.scandir(folder) as entries:
            wanted = [entry for entry in entries if _is_wanted(entry.name)]
    except OSError:
        return []
    return sorted(wanted, key=lambda entry: (entry.is_symlink(), entry.name))


def _is_wanted(name: str) -> bool:
    # Names that are not valid Unicode could not be sent to clients; printable names always are.
    return name.isprintable() and not name.startswith(".") and not name.endswith(UNFINISHED)
