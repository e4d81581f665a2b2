"""Jobs on disk: one table in an SQLite file in WAL mode, so a power cut tears nothing."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from pathlib import Path

import msgspec

from lmx_kernel.jobs.job import OPEN, Job

KEPT = 1000
"""Ended jobs that are remembered."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (id TEXT PRIMARY KEY, created_at REAL NOT NULL, job TEXT NOT NULL)
"""


class JobStore:
    """Keeps each job as JSON. Used from one thread at a time.

    :param path: of the file; it and its folder are made when they are missing.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._database = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute("PRAGMA synchronous=NORMAL")
        self._database.execute(_SCHEMA)

    def read(self) -> list[Job]:
        """Return all jobs, oldest first; the oldest of those that ended long ago are forgotten."""
        rows = self._database.execute("SELECT job FROM jobs ORDER BY created_at")
        jobs = [msgspec.json.decode(text, type=Job) for (text,) in rows]
        ended = [job for job in jobs if job.state not in OPEN]
        self._forget(ended[:-KEPT])
        return [job for job in jobs if job not in ended[:-KEPT]]

    def write(self, job: Job) -> None:
        """Keep a job as it is now.

        :raises sqlite3.Error: it cannot be written, for instance since the disk is full.
        """
        row = (job.id, job.created_at, msgspec.json.encode(job).decode())
        self._database.execute("INSERT OR REPLACE INTO jobs VALUES (?, ?, ?)", row)

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def _forget(self, jobs: Iterable[Job]) -> None:
        self._database.executemany("DELETE FROM jobs WHERE id = ?", [(job.id,) for job in jobs])
