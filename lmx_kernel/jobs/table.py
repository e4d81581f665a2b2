"""All jobs by their ids: in memory, and on disk as far as it can be written."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import structlog
from attrs import evolve

from lmx_kernel.errors import NotFoundError
from lmx_kernel.events import JobChanged, KernelEvent
from lmx_kernel.interfaces import OPEN, Job, JobState
from lmx_kernel.jobs.store import JobStore

KEPT = 1000
"""Ended jobs that are remembered."""
log = structlog.get_logger(__name__)


class JobTable:
    """Remembers jobs, and publishes their changes.

    :param path: of the file that they are kept in.
    """

    def __init__(self, path: Path, publish: Callable[[KernelEvent], None]) -> None:
        self._path = path
        self._publish = publish
        self._jobs: dict[str, Job] = {}
        self._store: JobStore | None = None
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="jobs")

    async def open(self) -> None:
        """Read the jobs on disk, once; after a failure the next call tries again."""
        if self._store is None:
            self._store = await self._on_disk(partial(JobStore, self._path))
            stored = await self._on_disk(self._store.read) if self._store else None
            self._jobs = {job.id: job for job in stored or ()} | self._jobs
            await self._on_disk(partial(self._write, self._forget()))

    async def close(self) -> None:
        """Close the file."""
        if self._store is not None:
            await self._on_disk(self._store.close)
        self._writer.shutdown(wait=False)

    def get(self, job_id: str) -> Job:
        """Return a job.

        :raises NotFoundError: there is none of that id.
        """
        try:
            return self._jobs[job_id]
        except KeyError:
            raise NotFoundError(f"there is no job {job_id[:64]}") from None

    def oldest_first(self) -> list[Job]:
        """Return all jobs, the oldest first."""
        return list(self._jobs.values())

    def select(self, kind: str | None = None, limit: int | None = None) -> list[Job]:
        """Return the jobs, of one kind if it is named, newest first.

        :param limit: the most that are returned; None returns all.
        """
        jobs = (job for job in reversed(self._jobs.values()) if kind in (None, job.kind))
        return list(islice(jobs, limit))

    def find(self, kind: str, key: str, states: Collection[JobState]) -> Job | None:
        """Return the newest job of a kind with this key that is in one of these states."""
        jobs = (job for job in self.select(kind) if job.key == key)
        return next((job for job in jobs if job.state in states), None)

    def put(self, job: Job) -> None:
        """Keep a job in memory only, without an event."""
        self._jobs[job.id] = job

    async def save(self, job: Job) -> None:
        """Keep a job as it is now, publish it, and return when it is on disk."""
        await self._on_disk(self._keep(job))

    def save_soon(self, job: Job) -> None:
        """Keep a job as it is now, publish it, and write it to disk in the background."""
        self._writer.submit(self._keep(job))

    # --- inside ---

    def _keep(self, job: Job) -> Callable[[], None]:
        """Return what writes the job to disk."""
        self._jobs[job.id] = job = evolve(job, updated_at=time.time())
        forgotten = self._forget() if job.state not in OPEN else []
        self._publish(
            JobChanged(
                id=job.id,
                kind=job.kind,
                state=job.state.value,
                done=job.done,
                total=job.total,
                note=job.note,
            )
        )
        return partial(self._write, forgotten, job)

    def _forget(self) -> list[str]:
        """Forget the jobs that ended first, beyond what is kept, and return their ids."""
        ended = [job for job in self._jobs.values() if job.state not in OPEN]
        old = sorted(ended, key=lambda job: job.updated_at)[:-KEPT]
        for job in old:
            del self._jobs[job.id]
        return [job.id for job in old]

    def _write(self, forgotten: Sequence[str], *jobs: Job) -> None:
        if self._store is None:
            return
        try:
            self._store.forget(forgotten)
            self._store.write(jobs)
        except sqlite3.Error:  # a full disk, say: a job goes on, and is kept when it can be
            log.exception("jobs_not_kept", jobs=[job.id for job in jobs])

    async def _on_disk(self, call: Callable[[], Any]) -> Any:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._writer, call)
        except (OSError, sqlite3.Error):
            log.exception("jobs_on_disk_failed")
            return None
