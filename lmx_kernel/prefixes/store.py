"""The stored states of one loaded model."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from attrs import define, field

from lmx_kernel.prefixes.entry import DamagedEntryError, read_entry, write_entry
from lmx_kernel.prefixes.folder import (
    ENTRY,
    default_limit_bytes,
    entries_of,
    entry_name,
    evict,
)

PAUSE_S = 60.0
"""After a write that failed, such as on a full disk, nothing is written for so long."""

ROOM_SHARE = 16
"""When the store is full, this part of it is freed at once: looking for what is oldest takes long
where there are many files, and what other workers have written is seen then.
"""


@define(eq=False)
class PrefixStore:
    """Reads and writes the states of one model; for any thread, but one writes at a time.

    They are of blocks, or whole: ``index`` is a block's place in its chain, or how many tokens a
    whole state is of.

    :param root: of all models.
    :param folder: of this one, below ``root``.
    :param model: its id in the catalogue, for people.
    :param identity: see :func:`~lmx_kernel.prefixes.keys.model_identity`.
    :param limit_bytes: of all models together.
    :param warn: told, in a sentence, what an operator should know.
    """

    root: Path
    model: str
    identity: bytes
    limit_bytes: int
    ttl_s: float
    warn: Callable[[str], None]
    folder: Path = field(init=False)
    _sizes: dict[bytes, int] = field(factory=dict, init=False)
    _written_bytes: int = field(default=0, init=False)
    _paused_until: float = field(default=0.0, init=False)
    _is_failing: bool = field(default=False, init=False)

    @folder.default
    def _own_folder(self) -> Path:
        return self.root / self.identity.hex()

    @classmethod
    def open(
        cls,
        root: Path,
        model: str,
        identity: bytes,
        *,
        limit_bytes: int | None,
        ttl_s: float,
        warn: Callable[[str], None],
    ) -> PrefixStore:
        """Open the store of a model.

        :param limit_bytes: None for :func:`~lmx_kernel.prefixes.folder.default_limit_bytes`.
        :raises OSError: the folder cannot be made, or is none of LMX's own.
        """
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        if limit_bytes is None:
            limit_bytes = default_limit_bytes(root)
        store = cls(root, model, identity, limit_bytes, ttl_s, warn)
        for folder in (root, store.folder):
            folder.mkdir(mode=0o700, exist_ok=True)
            if not stat.S_ISDIR(folder.lstat().st_mode):
                raise NotADirectoryError(f"{folder} is a symbolic link")
        store._scan()
        return store

    def __contains__(self, key: bytes) -> bool:
        return key in self._sizes

    def size_bytes(self, key: bytes) -> int:
        """Return the size of a block's file; 0 if there is none."""
        return self._sizes.get(key, 0)

    def lengths(self) -> list[int]:
        """Return how many tokens the whole states are of, what was used last at the end. Blocks."""
        entries = sorted(entries_of(self.folder), key=lambda entry: entry.used_at)
        return [entry.index for entry in entries]

    def read(self, index: int, key: bytes) -> bytearray | None:
        """Return a block's state; None if it is not there. A damaged file is deleted."""
        path = self.folder / entry_name(index, key)
        try:
            return read_entry(path, key)
        except FileNotFoundError:
            self._sizes.pop(key, None)
        except (OSError, DamagedEntryError) as error:
            self._discard(path, str(error))
            self._sizes.pop(key, None)
        return None

    def sample(self, size_bytes: int) -> int:
        """Read what was used last, at least so many bytes if there are as many; return how many."""
        entries = sorted(entries_of(self.folder), key=lambda entry: entry.used_at, reverse=True)
        done = 0
        for entry in entries:
            if done >= size_bytes:
                break
            state = self.read(entry.index, entry.key)
            done += len(state) if state is not None else 0
        return done

    def note(self, key: bytes, size_bytes: int) -> None:
        """Note that a block will be written."""
        self._sizes[key] = size_bytes

    def write(self, index: int, key: bytes, state: bytes | bytearray | memoryview) -> bool:
        """Write a block; return whether it is stored now. While the disk is full it is not."""
        if time.monotonic() < self._paused_until:
            self._sizes.pop(key, None)
            return False
        try:
            size = self._write(index, key, state)
        except OSError as error:
            self._sizes.pop(key, None)
            self._pause(error)
            return False
        self._is_failing = False
        self._sizes[key] = size
        self._make_room(size)
        return True

    def touch(self, blocks: Sequence[tuple[int, bytes]]) -> None:
        """Note that blocks were used, by index and key, all of them at the same time."""
        now = time.time()
        for index, key in blocks:
            try:
                if key in self._sizes:
                    path = self.folder / entry_name(index, key)
                    os.utime(path, (now, now), follow_symlinks=False)
            except OSError:
                self._sizes.pop(key, None)  # cleared, or evicted by another worker

    def remove(self, blocks: Sequence[tuple[int, bytes]]) -> None:
        """Delete blocks, by index and key."""
        for index, key in blocks:
            self._sizes.pop(key, None)
            with suppress(OSError):
                (self.folder / entry_name(index, key)).unlink()

    def make_room(self) -> None:
        """Delete what is too old or too much."""
        evict(self.root, self.limit_bytes - self.limit_bytes // ROOM_SHARE, self.ttl_s)
        self._written_bytes = 0
        self._sizes = {entry.key: entry.size_bytes for entry in entries_of(self.folder)}

    # --- inside ---

    def _scan(self) -> None:
        """Read which blocks there are, and delete what is no file of the store."""
        self._sizes = {entry.key: entry.size_bytes for entry in entries_of(self.folder)}
        for path in self.folder.iterdir():
            is_own = ENTRY.fullmatch(path.name) and stat.S_ISREG(path.lstat().st_mode)
            if not is_own and not path.name.startswith("."):
                self._discard(path, "it is no file of the store")

    def _discard(self, path: Path, why: str) -> None:
        self.warn(f"deleted the stored prefix {path.parent.name}/{path.name}: {why}")
        with suppress(OSError):
            path.unlink()

    def _write(self, index: int, key: bytes, state: bytes | bytearray | memoryview) -> int:
        path = self.folder / entry_name(index, key)
        try:
            return write_entry(path, self.model, index, key, state)
        except FileNotFoundError:  # the store was cleared
            self._sizes.clear()
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            return write_entry(path, self.model, index, key, state)

    def _pause(self, error: OSError) -> None:
        self._paused_until = time.monotonic() + PAUSE_S
        if not self._is_failing:
            self._is_failing = True
            self.warn(f"prefixes are not stored on disk for now: {error.strerror or error}")

    def _make_room(self, size: int) -> None:
        self._written_bytes += size
        if self._written_bytes > self.limit_bytes // ROOM_SHARE:
            self.make_room()
