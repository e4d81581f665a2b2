"""Sources of models on disk."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from attrs import define

from lmx_kernel.errors import ForbiddenError
from lmx_kernel.types import Location, ModelCard
from lmx_model_folders.tree import Tree, contents


@define
class FolderSource:
    """Folders with models as ``publisher/name/files``, or in any other layout.

    :param owned: whether LMX may delete files there.
    """

    name: str
    roots: tuple[Path, ...]
    owned: bool = False

    def locations(self) -> Iterator[Location]:
        """Yield every folder with files; each file directly in a root is a location of its own."""
        tree = Tree()
        for root in self.roots:
            for location in tree.walk(root.absolute()):
                if location.name:
                    yield location
                else:
                    yield from _singly(location)

    def delete(self, card: ModelCard) -> None:
        """Delete a model's files, and the folders that are empty then.

        :raises ForbiddenError: the folders belong to another program, or a file is outside of them.
        """
        if not self.owned:
            raise ForbiddenError(f"{card.id} is in a folder of another program; delete it there")
        roots = [root.resolve() for root in self.roots]
        for file in card.files:
            # The folder is resolved, but not the file: a link is deleted, not its target.
            folder = file.parent.resolve()
            if not any(folder.is_relative_to(root) for root in roots):
                raise ForbiddenError(f"{card.id} has a file outside of the model folders")
        for file in card.files:
            file.unlink(missing_ok=True)
            _remove_empty(file.parent.resolve(), roots)


@define
class HuggingFaceSource:
    """A cache in the layout ``models--publisher--name/snapshots/revision/files``."""

    name: str
    cache: Path

    def locations(self) -> Iterator[Location]:
        """Yield the folders with files in one snapshot of each model."""
        tree = Tree()
        for repository in contents(self.cache)[0]:
            kind, _, name = repository.partition("--")
            snapshot = _snapshot(self.cache.absolute() / repository) if kind == "models" else None
            if snapshot and name:
                yield from tree.walk(snapshot, name.replace("--", "/", 1))

    def delete(self, card: ModelCard) -> None:
        """Refuse: the cache has links and reference counts of its own.

        :raises ForbiddenError: always.
        """
        raise ForbiddenError(f"{card.id} is in a cache of another program; delete it there")


def hugging_face_cache(environ: Mapping[str, str]) -> Path:
    """Return the folder that Hugging Face's own tools download to."""
    caches = environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = environ.get("HF_HOME") or f"{caches}/huggingface"
    hub = environ.get("HF_HUB_CACHE") or environ.get("HUGGINGFACE_HUB_CACHE") or f"{home}/hub"
    return Path(os.path.expandvars(hub)).expanduser()


def _remove_empty(folder: Path, roots: list[Path]) -> None:
    while folder not in roots and folder.exists() and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent


def _singly(location: Location) -> Iterator[Location]:
    for file in location.files:
        yield Location(Path(file).stem, location.folder, (file,))


def _snapshot(repository: Path) -> Path | None:
    """Return the snapshot of the branch ``main``, or else the newest."""
    folder = repository / "snapshots"
    main = _main(repository)
    newest: tuple[bool, float, Path] | None = None
    for revision in contents(folder)[0]:
        with suppress(OSError):
            snapshot = folder / revision
            found = (revision == main, snapshot.stat().st_mtime, snapshot)
            newest = max(newest or found, found)
    return newest[-1] if newest else None


def _main(repository: Path) -> str:
    try:
        return (repository / "refs" / "main").read_text("utf-8", errors="replace").strip()
    except OSError:
        return ""
