"""Where a download lies: in a folder that nobody lists until all of it is there and right."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from attrs import frozen
from filelock import lock_descriptor

from lmx_hub.choice import RemoteFile
from lmx_hub.names import inside
from lmx_kernel.config.disk_sync import sync_file

UNFINISHED = ".part"
TAKEN = {errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR}


@frozen
class Place:
    """One download's two folders: ``target``, and ``partial`` beside it, on the same disk."""

    root: Path
    target: Path
    partial: Path

    @classmethod
    def of(cls, root: Path, repo: str, key: str) -> Place:
        """Return the place for what is told apart by ``key``.

        :param repo: a checked ``publisher/name``.
        :raises ForbiddenError: a link leads out of ``root``.
        """
        target = inside(root, root / repo)
        digest = hashlib.sha256(key.encode()).hexdigest()[:12]
        return cls(root, target, target.with_name(f"{target.name}@{digest}{UNFINISHED}"))

    @contextmanager
    def held(self) -> Iterator[None]:
        """Make the partial folder, and keep other processes from it. The lock is on the folder, so
        there is no file of it, and it stays when the folder is renamed.
        """
        self.partial.mkdir(parents=True, exist_ok=True)
        handle = os.open(self.partial, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            lock_descriptor(handle)
            yield
        finally:
            os.close(handle)

    def whole(self, file: RemoteFile) -> Path:
        """Return where a file goes when it is known to be right."""
        return inside(self.root, self.partial / file.path)

    def part(self, file: RemoteFile) -> Path:
        """Return where a file grows."""
        return inside(self.root, self.partial / (file.path + UNFINISHED))

    def has(self, file: RemoteFile) -> bool:
        """Tell whether the file is there, whole and right, from an earlier download."""
        return is_right(inside(self.root, self.target / file.path), file)

    def size_of(self, file: RemoteFile) -> int:
        """Return how many bytes of a file have come."""
        return max(_size(self.part(file)), _size(self.whole(file)))

    def publish(self, files: Sequence[RemoteFile]) -> None:
        """Put whole files where models are looked for: all at once, if the model is new."""
        self._remove_others(files)
        _sync_folders(self.partial)
        try:
            self.partial.rename(self.target)
        except OSError as error:
            if error.errno not in TAKEN:
                raise
            self._join(files)
        _sync(self.target.parent)

    def discard(self) -> None:
        """Remove what has come, and the publisher's folder if nothing else is in it."""
        with suppress(FileNotFoundError):
            if self.partial.is_symlink():
                self.partial.unlink()
            shutil.rmtree(self.partial)
        with suppress(OSError):
            self.partial.parent.rmdir()

    def _remove_others(self, files: Sequence[RemoteFile]) -> None:
        """Remove what an earlier run left that the model does not have any more."""
        wanted = {self.whole(file) for file in files}
        for path in sorted(self.partial.rglob("*"), reverse=True):
            if path.is_dir() and not path.is_symlink():
                with suppress(OSError):
                    path.rmdir()  # if it is empty by now
            elif path not in wanted:
                path.unlink()

    def _join(self, files: Sequence[RemoteFile]) -> None:
        # The first part of a split model is the one it is recognised by, so it comes last.
        for file in sorted(files, key=lambda file: file.path, reverse=True):
            path = self.target / file.path
            inside(self.root, path).parent.mkdir(parents=True, exist_ok=True)
            self.whole(file).replace(path)
        _sync_folders(self.target)
        self.discard()


def is_right(path: Path, file: RemoteFile) -> bool:
    """Tell whether ``path`` has the size and the hash that the hub tells of ``file``."""
    if not path.is_file() or _size(path) != file.size_bytes:
        return False
    with path.open("rb") as data:
        if file.sha256 is not None:
            return hashlib.file_digest(data, "sha256").hexdigest() == file.sha256
        blob = hashlib.sha1(b"blob %d\0" % file.size_bytes, usedforsecurity=False)
        return hashlib.file_digest(data, lambda: blob).hexdigest() == file.blob_id


def _size(path: Path) -> int:
    try:
        return path.stat().st_size if path.is_file() else 0
    except OSError:
        return 0


def _sync_folders(top: Path) -> None:
    for folder, _, _ in os.walk(top):
        _sync(Path(folder))


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        sync_file(handle)
    finally:
        os.close(handle)
