"""A download, as the child process does it: look, choose, fetch, check, publish."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator, Sequence
from io import FileIO
from pathlib import Path
from typing import Any

from attrs import define, frozen

from lmx_hub.choice import RemoteFile, choose
from lmx_hub.hub import Hub, Patience
from lmx_hub.place import Place, is_right
from lmx_kernel.config.disk_sync import sync_file
from lmx_kernel.errors import DiskFullError, InternalError, UnavailableError
from lmx_kernel.interfaces import Report
from lmx_kernel.memory.sizes import format_bytes

DAMAGED_TRIES = 3


@frozen(kw_only=True)
class Order:
    """What the child is told: a download's spec, and what it needs of the settings."""

    repo: str
    revision: str
    quantization: str | None
    files: Sequence[str] | None
    key: str
    root: str
    endpoint: str
    reserve_bytes: int
    stall_timeout_s: float
    wait_s: float


def fetch(spec: dict[str, Any], report: Report) -> dict[str, Any]:
    """Fetch what an :class:`Order` says, from where an earlier try stopped.

    :raises LmxError: it cannot be had; what has come is kept.
    """
    try:
        return _fetch(Order(**spec), report)
    except OSError as error:
        raise _of_disk(error) from error


def _fetch(order: Order, report: Report) -> dict[str, Any]:
    hub = Hub(order.repo, order.endpoint, order.stall_timeout_s)
    progress = _Progress(report)
    patience = Patience(order.wait_s, progress.wait)
    listing = hub.listing(order.revision, patience)
    patience.renew()
    choice = choose(listing.files, order.quantization, order.files)
    root = Path(order.root)
    root.mkdir(parents=True, exist_ok=True)
    place = Place.of(root, order.repo, order.key)
    total = sum(file.size_bytes for file in choice.files)
    with place.held():
        missing = [file for file in choice.files if not place.has(file)]
        progress.total = total
        progress.before = total - sum(file.size_bytes for file in missing)
        _check_space(place, missing, order.reserve_bytes)
        for file in missing:
            download = _Download(
                hub, listing.commit, file, place, progress, patience, order.reserve_bytes
            )
            download.complete()
        if missing:
            place.publish(missing)
        else:
            place.discard()
    report(total, total)
    return {
        "model": order.repo,
        "files": [file.path for file in choice.files],
        "bytes": total,
        "quantization": choice.quantization,
        "quantizations": list(choice.quantizations),
    }


def _check_space(place: Place, files: Sequence[RemoteFile], reserve_bytes: int) -> None:
    missing = sum(file.size_bytes - min(place.size_of(file), file.size_bytes) for file in files)
    needed = missing * 1.05 + reserve_bytes if missing else 0
    free = shutil.disk_usage(place.root).free
    if needed > free:
        raise DiskFullError(
            f"{format_bytes(missing)} are still to come and {format_bytes(reserve_bytes)} are to "
            f"stay free, but the disk has only {format_bytes(free)}"
        )


def _of_disk(error: OSError) -> DiskFullError | InternalError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFullError("the disk is full; what has come is kept, and the download can go on")
    return InternalError(f"the folder for downloads cannot be used: {error.strerror}")


@define
class _Progress:
    """Bytes of all files together.

    :ivar total: None before the hub has told it.
    :ivar before: of those that are done.
    :ivar of_file: of the one that is on its way.
    """

    _report: Report
    total: int | None = None
    before: int = 0
    of_file: int = 0

    def tell(self, bytes_of_file: int, note: str) -> None:
        self.of_file = bytes_of_file
        self._report(self.before + bytes_of_file, self.total, note)

    def wait(self, note: str) -> None:
        """Tell what is waited for."""
        self.tell(self.of_file, note)

    def end_file(self, size_bytes: int) -> None:
        """Count a file as done."""
        self.before, self.of_file = self.before + size_bytes, 0


@frozen
class _Download:
    """One file on its way."""

    hub: Hub
    commit: str
    file: RemoteFile
    place: Place
    progress: _Progress
    patience: Patience
    reserve_bytes: int

    def complete(self) -> None:
        """Bring the file, and know that it is right.

        :raises UnavailableError: it came damaged again and again, or does not come.
        """
        part, whole = self.place.part(self.file), self.place.whole(self.file)
        part.parent.mkdir(parents=True, exist_ok=True)
        if not is_right(whole, self.file):
            self._bring(part)
            part.rename(whole)
        self.progress.end_file(self.file.size_bytes)

    def _bring(self, part: Path) -> None:
        for _ in range(DAMAGED_TRIES):
            self._fill(part)
            self.progress.tell(self.file.size_bytes, f"checking {self.file.path}")
            if is_right(part, self.file):
                return
            part.unlink()
        raise UnavailableError(f"{self.file.path} came damaged {DAMAGED_TRIES} times")

    def _fill(self, part: Path) -> None:
        with _opened(part, self.file.size_bytes) as out:
            furthest = out.tell()
            self.progress.of_file = furthest
            while out.tell() < self.file.size_bytes:
                error = self._read(out)
                if out.tell() > furthest:
                    furthest = out.tell()
                    self.patience.renew()
                elif error is None:
                    break  # the hub has no more of it: it is not what was listed
                if error is not None:
                    self.patience.after(error)
            sync_file(out.fileno())

    def _read(self, out: FileIO) -> UnavailableError | None:
        """Take what the hub sends, from where the file ends; no more than it should be long.

        :returns: why it ended too early; None if the hub ended it.
        """
        try:
            with self.hub.opened(self.commit, self.file.path, out.tell()) as (start, chunks):
                out.seek(start)
                out.truncate()
                self._take(out, chunks)
        except UnavailableError as error:
            return error
        return None

    def _take(self, out: FileIO, chunks: Iterator[bytes]) -> None:
        for chunk in chunks:
            room = self.file.size_bytes - out.tell()
            self._check_reserve()
            _write(out, chunk[:room])
            self.progress.tell(out.tell(), self.file.path)
            if len(chunk) > room:
                break

    def _check_reserve(self) -> None:
        """Leave alone what is to stay free, also where others fill the disk meanwhile."""
        if shutil.disk_usage(self.place.root).free < self.reserve_bytes:
            raise DiskFullError(
                f"the disk has less than the {format_bytes(self.reserve_bytes)} that are to stay "
                "free; what has come is kept, and the download can go on"
            )


def _opened(part: Path, size_bytes: int) -> FileIO:
    """Open a file to go on at its end, unbuffered: what has come is kept whatever happens."""
    out = FileIO(os.open(part, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644), "r+")
    if out.seek(0, os.SEEK_END) > size_bytes:
        out.truncate(out.seek(0))
    return out


def _write(out: FileIO, data: bytes) -> None:
    while data:
        data = data[out.write(data) :]
