"""The folder of all stored states: a subfolder for each model, and a file for each block in it.

Everything that is known of the store is read from these names, sizes and times, so there is no
index to be damaged. A file's time of change is when it was last used.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from attrs import frozen

from lmx_kernel.prefixes.entry import DamagedEntryError, read_header
from lmx_kernel.types import PrefixUsage

FOLDER = "prefixes"
MODEL_FOLDER = re.compile(r"[0-9a-f]{32}")
ENTRY = re.compile(r"(\d{6,12})-([0-9a-f]{32})((?:-[0-9a-f]{16})*)\.state")
MOST_BYTES = 20 << 30
FREE_SHARE = 10
LEFT_OVER_S = 600.0
"""A temporary file that is older belongs to a worker that was killed."""


@frozen
class StoredEntry:
    """A file of the store.

    :ivar index: of its block in the chain; of a whole state, how many tokens it is of.
    :ivar used_at: seconds since the epoch.
    :ivar parts: keys of its beginnings, see :func:`~lmx_kernel.prefixes.keys.part_keys`.
    """

    folder: Path
    name: str
    index: int
    key: bytes
    size_bytes: int
    used_at: float
    parts: tuple[bytes, ...] = ()

    @property
    def path(self) -> Path:
        """Where it lies; made when it is needed, since there may be very many."""
        return self.folder / self.name


def entry_name(index: int, key: bytes, parts: Iterable[bytes] = ()) -> str:
    """Return the name of the file of a block, or of a whole state; see :class:`StoredEntry`."""
    return "-".join((f"{index:06}", *(one.hex() for one in (key, *parts)))) + ".state"


def entries_of(folder: Path) -> Iterator[StoredEntry]:
    """Yield the files of a model; whatever else lies in its folder is passed over."""
    try:
        found = list(os.scandir(folder))
    except OSError:
        return
    for one in found:
        name = ENTRY.fullmatch(one.name)
        if name is None or not one.is_file(follow_symlinks=False):
            continue
        try:
            stat = one.stat(follow_symlinks=False)
        except OSError:  # another process has just deleted it
            continue
        key = bytes.fromhex(name[2])
        parts = tuple(map(bytes.fromhex, name[3].split("-")[1:]))
        yield StoredEntry(folder, one.name, int(name[1]), key, stat.st_size, stat.st_mtime, parts)


def model_folders(root: Path) -> list[Path]:
    """Return the folders of all models; ``root`` need not exist."""
    with suppress(OSError), os.scandir(root) as found:
        return sorted(
            Path(one.path)
            for one in found
            if MODEL_FOLDER.fullmatch(one.name) and one.is_dir(follow_symlinks=False)
        )
    return []


def usage(root: Path) -> list[PrefixUsage]:
    """Return what is stored for each model. Blocks: call it in a thread."""
    totals: dict[str, PrefixUsage] = {}
    for folder in model_folders(root):
        entries = list(entries_of(folder))
        model = _model_of(entries)
        before = totals.get(model, PrefixUsage(model=model))
        totals[model] = PrefixUsage(
            model=model,
            entries=before.entries + len(entries),
            size_bytes=before.size_bytes + sum(entry.size_bytes for entry in entries),
            used_at=max((before.used_at, *(entry.used_at for entry in entries))),
        )
    return sorted((one for one in totals.values() if one.entries), key=lambda one: one.model)


def clear(root: Path, model: str | None = None) -> int:
    """Delete what is stored for a model, or everything; return how many bytes that were. A worker
    that runs notices it and begins anew. Blocks: call it in a thread.
    """
    freed = 0
    for folder in model_folders(root):
        entries = list(entries_of(folder))
        if model in (None, _model_of(entries)):
            freed += sum(entry.size_bytes for entry in entries)
            shutil.rmtree(folder, ignore_errors=True)
    return freed


def evict(root: Path, limit_bytes: int, ttl_s: float) -> None:
    """Delete the entries that were not used for longest until the rest fits, and those that were
    not used for ``ttl_s``, unless that is 0.

    Of entries that were used at the same time those late in their chains go first, since they are
    of no use without those before them. May run in several workers at once.
    """
    _remove_left_over(root)
    entries = [entry for folder in model_folders(root) for entry in entries_of(folder)]
    entries.sort(key=lambda entry: (entry.used_at, -entry.index))
    total, oldest = sum(entry.size_bytes for entry in entries), time.time() - ttl_s
    for entry in entries:
        if total <= limit_bytes and not (ttl_s and entry.used_at < oldest):
            break
        with suppress(OSError):
            entry.path.unlink()
        total -= entry.size_bytes


def default_limit_bytes(root: Path) -> int:
    """Return how much may be stored where the config does not say: a tenth of the disk that is free
    or taken by the store, and at most 20 GiB.
    """
    taken = sum(entry.size_bytes for folder in model_folders(root) for entry in entries_of(folder))
    return min(MOST_BYTES, (shutil.disk_usage(root).free + taken) // FREE_SHARE)


def _model_of(entries: list[StoredEntry]) -> str:
    for entry in entries:
        with suppress(OSError, DamagedEntryError):
            return read_header(entry.path).model
    return "unknown"


def _remove_left_over(root: Path) -> None:
    oldest = time.time() - LEFT_OVER_S
    for folder in model_folders(root):
        for path in folder.glob(".*.state.*"):
            with suppress(OSError):
                if path.lstat().st_mtime < oldest:
                    path.unlink()
