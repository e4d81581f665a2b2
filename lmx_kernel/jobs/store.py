"""Jobs on disk: one table in an SQLite file in WAL mode, so a power cut tears nothing."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable
from contextlib import closing, suppress
from pathlib import Path

import msgspec
import structlog

from lmx_kernel.interfaces import Job

FILE = Path("state", "jobs.db")  # in LMX's own folder
log = structlog.get_logger(__name__)

_SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (id TEXT PRIMARY KEY, created_at REAL NOT NULL, job TEXT NOT NULL)
"""


class JobStore:
    """Keeps each job as JSON. Used from one thread at a time.

    :param path: of the file; it and its folder are made when they are missing, and only their
        owner may read them. A damaged one is put aside.
    :raises sqlite3.Error: it cannot be opened.
    :raises OSError: the same.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with suppress(OSError):  # made by an older LMX, or on a disk without modes
            path.parent.chmod(0o700)
        if is_damaged(path):
            _put_aside(path)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        with suppress(OSError):
            path.chmod(0o600)  # SQLite's other files get the same
        self._database = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute("PRAGMA synchronous=NORMAL")
        self._database.execute("PRAGMA checkpoint_fullfsync=ON")  # macOS, as config.disk_sync
        self._database.execute(_SCHEMA)

    def read(self) -> list[Job]:
        """Return all jobs that can be read, oldest first."""
        rows = self._database.execute("SELECT id, CAST(job AS BLOB) FROM jobs ORDER BY created_at")
        return [job for row in rows if (job := _read(*row)) is not None]

    def write(self, jobs: Iterable[Job]) -> None:
        """Keep jobs as they are now.

        :raises sqlite3.Error: it cannot be written, for instance since the disk is full.
        """
        rows = [(job.id, job.created_at, msgspec.json.encode(job).decode()) for job in jobs]
        self._database.executemany("INSERT OR REPLACE INTO jobs VALUES (?, ?, ?)", rows)

    def forget(self, ids: Iterable[str]) -> None:
        """Keep jobs no longer.

        :raises sqlite3.Error: as for :meth:`write`.
        """
        self._database.executemany("DELETE FROM jobs WHERE id = ?", [(job_id,) for job_id in ids])

    def close(self) -> None:
        """Close the file."""
        self._database.close()


def damaged_path(path: Path) -> Path:
    """Return where a damaged file of jobs is put; what was there before is replaced."""
    return path.with_name(f"{path.name}.damaged")


def is_damaged(path: Path) -> bool:
    """Return whether there is a file, but none that SQLite can read.

    :raises sqlite3.Error: it cannot be opened for another reason.
    """
    if not path.exists():
        return False
    try:
        with closing(sqlite3.connect(path)) as database:
            return bool(database.execute("PRAGMA quick_check(1)").fetchone() != ("ok",))
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            return True
        raise


def _put_aside(path: Path) -> None:
    aside = damaged_path(path)
    path.replace(aside)
    for suffix in ("-wal", "-shm"):  # of the damaged one; they would be read into its successor
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    log.error("jobs_damaged", file=str(path), kept_as=str(aside))


def _read(job_id: str, data: bytes) -> Job | None:
    try:
        return msgspec.json.decode(data, type=Job)
    except (msgspec.DecodeError, ValueError) as error:  # damaged, or of another version of LMX
        log.warning("job_unreadable", job=job_id, error=str(error))
        return None
