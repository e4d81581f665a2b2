"""Jobs on disk: one table in an SQLite file."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec
import structlog

from lmx_kernel.config.private_database import open_database
from lmx_kernel.interfaces import Job

FILE = Path("state", "jobs.db")  # in LMX's own folder
log = structlog.get_logger(__name__)

_SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (id TEXT PRIMARY KEY, created_at REAL NOT NULL, job TEXT NOT NULL)
"""


class JobStore:
    """Keeps each job as JSON. Used from one thread at a time.

    :param path: of the file; see :func:`open_database`.
    """

    def __init__(self, path: Path) -> None:
        self._database = open_database(path, _SCHEMA)

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


def _read(job_id: str, data: bytes) -> Job | None:
    try:
        return msgspec.json.decode(data, type=Job)
    except (msgspec.DecodeError, ValueError) as error:  # damaged, or of another version of LMX
        log.warning("job_unreadable", job=job_id, error=str(error))
        return None
