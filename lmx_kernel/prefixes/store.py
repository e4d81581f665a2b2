"""The stored states of one loaded model."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from attrs import define, evolve, field

from lmx_kernel.prefixes.entry import DamagedEntryError, read_entry, write_entry
from lmx_kernel.prefixes.folder import (
    ENTRY,
    StoredEntry,
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
    _entries: dict[bytes, StoredEntry] = field(factory=dict, init=False)
    _parts: dict[bytes, bytes] = field(factory=dict, init=False)
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
        return key in self._entries

    def key_of(self, part: bytes) -> bytes | None:
        """Return the key of a block that begins so; see
        :func:`~lmx_kernel.prefixes.keys.part_keys`.
        """
        return self._parts.get(part)

    def size_bytes(self, key: bytes) -> int:
        """Return the size of a block's file; 0 if there is none."""
        entry = self._entries.get(key)
        return entry.size_bytes if entry is not None else 0

    def lengths(self) -> list[int]:
        """Return how many tokens the whole states are of, what was used last at the end."""
        return [entry.index for entry in self._by_use()]

    def read(self, index: int, key: bytes) -> bytearray | None:
        """Return a block's state; None if it is not there. A damaged file is deleted."""
        path, entry = self._path(index, key), self._entries.get(key)
        try:
            return read_entry(path, key, entry.parts if entry is not None else ())
        except FileNotFoundError:
            self._forget(key)
        except (OSError, DamagedEntryError) as error:
            self._discard(path, str(error))
            self._forget(key)
        return None

    def sample(self, size_bytes: int) -> int:
        """Read what was used last, at least so many bytes if there are as many; return how many."""
        done = 0
        for entry in reversed(self._by_use()):
            if done >= size_bytes:
                break
            state = self.read(entry.index, entry.key)
            done += len(state) if state is not None else 0
        return done

    def note(self, index: int, key: bytes, size_bytes: int, parts: Iterable[bytes] = ()) -> None:
        """Note that a block will be written.

        :param parts: keys of its beginnings.
        """
        name, parts = entry_name(index, key, parts), tuple(parts)
        self._add(StoredEntry(self.folder, name, index, key, size_bytes, time.time(), parts))

    def write(self, index: int, key: bytes, state: bytes | bytearray | memoryview) -> bool:
        """Write a block; return whether it is stored now. While the disk is full it is not."""
        if key not in self._entries:
            self.note(index, key, 0)
        entry = self._entries[key]
        if time.monotonic() < self._paused_until:
            self._forget(key)
            return False
        try:
            size = self._write(entry, state)
        except OSError as error:
            self._forget(key)
            self._pause(error)
            return False
        self._is_failing = False
        self._add(evolve(entry, size_bytes=size))
        self._make_room(size)
        return True

    def touch(self, blocks: Sequence[tuple[int, bytes]]) -> None:
        """Note that blocks were used, by index and key, all of them at the same time."""
        now = time.time()
        for _, key in blocks:
            try:
                if (entry := self._entries.get(key)) is not None:
                    os.utime(entry.path, (now, now), follow_symlinks=False)
                    self._entries[key] = evolve(entry, used_at=now)
            except OSError:
                self._forget(key)  # cleared, or evicted by another worker

    def remove(self, blocks: Sequence[tuple[int, bytes]]) -> None:
        """Delete blocks, by index and key."""
        for index, key in blocks:
            path = self._path(index, key)
            self._forget(key)
            with suppress(OSError):
                path.unlink()

    def make_room(self) -> None:
        """Delete what is too old or too much."""
        evict(self.root, self.limit_bytes - self.limit_bytes // ROOM_SHARE, self.ttl_s)
        self._written_bytes = 0
        self._read_names()

    # --- inside ---

    def _scan(self) -> None:
        """Read which blocks there are, and delete what is no file of the store."""
        names = os.listdir(self.folder)  # noqa: PTH208 - there may be very many
        self._read_names()
        for name in {*names} - {entry.name for entry in self._entries.values()}:
            path = self.folder / name
            with suppress(FileNotFoundError):  # another process has just deleted it
                is_own = ENTRY.fullmatch(name) and stat.S_ISREG(path.lstat().st_mode)
                if not is_own and not name.startswith("."):
                    self._discard(path, "it is no file of the store")

    def _by_use(self) -> list[StoredEntry]:
        """Return the entries, what was used last at the end."""
        return sorted(self._entries.values(), key=lambda entry: entry.used_at)

    def _read_names(self) -> None:
        entries = {entry.key: entry for entry in entries_of(self.folder)}
        self._parts = {part: key for key, entry in entries.items() for part in entry.parts}
        self._entries = entries

    def _path(self, index: int, key: bytes) -> Path:
        entry = self._entries.get(key)
        return entry.path if entry is not None else self.folder / entry_name(index, key)

    def _add(self, entry: StoredEntry) -> None:
        self._entries[entry.key] = entry
        self._parts.update(dict.fromkeys(entry.parts, entry.key))

    def _forget(self, key: bytes) -> None:
        entry = self._entries.pop(key, None)
        for part in entry.parts if entry is not None else ():
            if self._parts.get(part) == key:
                self._parts.pop(part, None)

    def _discard(self, path: Path, why: str) -> None:
        self.warn(f"deleted the stored prefix {path.parent.name}/{path.name}: {why}")
        with suppress(OSError):
            path.unlink()

    def _write(self, entry: StoredEntry, state: bytes | bytearray | memoryview) -> int:
        values = (self.model, entry.index, entry.key, state, entry.parts)
        try:
            return write_entry(entry.path, *values)
        except FileNotFoundError:  # the store was cleared
            self._entries, self._parts = {}, {}
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            return write_entry(entry.path, *values)

    def _pause(self, error: OSError) -> None:
        self._paused_until = time.monotonic() + PAUSE_S
        if not self._is_failing:
            self._is_failing = True
            self.warn(f"prefixes are not stored on disk for now: {error.strerror or error}")

    def _make_room(self, size: int) -> None:
        self._written_bytes += size
        if self._written_bytes > self.limit_bytes // ROOM_SHARE:
            self.make_room()
