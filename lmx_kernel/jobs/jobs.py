"""All jobs: started, watched and stopped by their ids; those that a stop cut off go on later."""

from __future__ import annotations

import asyncio
import secrets
import sqlite3
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import structlog
from attrs import evolve, frozen

from lmx_kernel.errors import ConflictError, InternalError, LmxError, NotFoundError
from lmx_kernel.events import JobChanged, KernelEvent
from lmx_kernel.interfaces import OPEN, PENDING, Job, JobError, JobKind, JobState, ReusableJobKind
from lmx_kernel.jobs.rate_meter import RateMeter
from lmx_kernel.jobs.store import JobStore

TELL_S = 1.0
KEPT = 1000
"""Ended jobs that are remembered."""
log = structlog.get_logger(__name__)


@frozen
class _Running:
    """What runs a job, to its end: also when its kind is not offered any more."""

    kind: JobKind
    task: asyncio.Task[None]


class Jobs:
    """Owns every job. Calls that want the same join the job that is open for it already.

    :param path: where jobs are kept.
    :param publish: is told of every change.
    :param on_done: awaited after a job succeeded: something new may be on disk.
    """

    def __init__(
        self,
        path: Path,
        publish: Callable[[KernelEvent], None],
        on_done: Callable[[], Awaitable[None]],
    ) -> None:
        self._path = path
        self._publish = publish
        self._on_done = on_done
        self._kinds: dict[str, JobKind] = {}
        self._jobs: dict[str, Job] = {}
        self._running: dict[str, _Running] = {}
        self._ending: list[tuple[str, str]] = []  # kinds and keys whose jobs leave the disk
        self._store: JobStore | None = None
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="jobs")

    async def open(self, kinds: Iterable[JobKind]) -> None:
        """Offer these kinds and no others, and go on with their jobs that were cut off. May be
        called again when there are others; what runs goes on as it began.
        """
        self._kinds = {kind.name: kind for kind in kinds}
        if self._kinds and self._store is None:
            self._store = await self._on_disk(partial(JobStore, self._path))
            kept = await self._on_disk(self._store.read) if self._store else []
            self._jobs = {job.id: job for job in kept or ()}
            await self._on_disk(partial(self._write, self._forget()))
        for job in self._jobs.values():
            if job.state is JobState.RUNNING and job.id not in self._running:
                self._jobs[job.id] = evolve(job, state=JobState.QUEUED)
        self._pump()

    async def close(self) -> None:
        """Stop what runs; it goes on when jobs are opened again."""
        running, self._running = self._running, {}
        self._kinds = {}
        await _cancel(running.values())
        if self._store is not None:
            await self._on_disk(self._store.close)
        self._writer.shutdown(wait=False)

    # --- asking ---

    def kind(self, name: str) -> JobKind:
        """Return a kind of job.

        :raises NotFoundError: no active plugin offers it.
        """
        try:
            return self._kinds[name]
        except KeyError:
            raise NotFoundError(f"no active plugin offers jobs of the kind {name}") from None

    def get(self, job_id: str) -> Job:
        """Return a job.

        :raises NotFoundError: there is none of that id.
        """
        try:
            return self._jobs[job_id]
        except KeyError:
            raise NotFoundError(f"there is no job {job_id[:64]}") from None

    def select(self, kind: str | None = None, limit: int | None = None) -> list[Job]:
        """Return the jobs, of one kind if it is named, newest first.

        :param limit: the most that are returned; None returns all.
        """
        jobs = (job for job in reversed(self._jobs.values()) if kind in (None, job.kind))
        return list(islice(jobs, limit))

    # --- changing ---

    async def start(self, kind_name: str, spec: Any) -> Job:
        """Start a job, or return the one that is open for the same already, or did it where that
        lasts.

        :param spec: of the kind's own class.
        :raises NotFoundError: no active plugin offers the kind.
        """
        kind = self.kind(kind_name)
        key = kind.key(spec)
        if (job := self._find_open(kind_name, key)) is not None:
            return await self.resume(job.id)
        if (job := self._find_done(kind, key)) is not None:
            return job
        now = time.time()
        job = Job(
            id=f"{kind_name}-{secrets.token_hex(6)}",
            kind=kind_name,
            key=key,
            unit=kind.unit,
            spec=msgspec.to_builtins(spec),
            created_at=now,
            updated_at=now,
        )
        self._jobs[job.id] = job
        await self._set(job)
        self._pump()
        return self._jobs[job.id]

    async def pause(self, job_id: str) -> Job:
        """Stop a job for now, and keep what it has.

        :raises NotFoundError: there is none of that id.
        :raises ConflictError: it has ended.
        """
        job = self.get(job_id)
        if job.state not in OPEN:
            raise ConflictError(f"the job is {job.state} and cannot be paused")
        with self._held_back(job):
            await self._end(evolve(job, state=JobState.PAUSED))
        return self._jobs[job_id]

    async def resume(self, job_id: str) -> Job:
        """Go on with a job that was paused, or try one again that failed; or return the one that
        tries the same already.

        :raises NotFoundError: there is none of that id.
        :raises ConflictError: it is done, or was cancelled.
        """
        job = self.get(job_id)
        if job.state is JobState.FAILED:
            job = self._find_open(job.kind, job.key) or job
        if job.state in (JobState.PAUSED, JobState.FAILED):
            self.kind(job.kind)
            await self._set(evolve(job, state=JobState.QUEUED, error=None))
            self._pump()
        elif job.state not in PENDING:
            raise ConflictError(f"the job is {job.state} and cannot be resumed")
        return self._jobs[job.id]

    async def cancel(self, job_id: str) -> Job:
        """Stop a job for good, and remove what it left behind, unless another goes on with that.

        :raises NotFoundError: there is none of that id.
        :raises ConflictError: it is done.
        """
        job = self.get(job_id)
        if job.state is JobState.CANCELLED:
            return job
        if job.state is JobState.DONE:
            raise ConflictError("the job is done and cannot be cancelled")
        running = self._running.get(job_id)
        kind = running.kind if running else self._kinds.get(job.kind)
        with self._held_back(job):
            await self._end(evolve(job, state=JobState.CANCELLED))
            if kind is not None and self._find_open(job.kind, job.key) is None:
                await _discard(kind, job)
        return self._jobs[job_id]

    # --- inside ---

    def _find_open(self, kind: str, key: str) -> Job | None:
        """Return the job that is open for the same."""
        jobs = (job for job in self.select(kind) if job.key == key)
        return next((job for job in jobs if job.state in OPEN), None)

    def _find_done(self, kind: JobKind, key: str) -> Job | None:
        """Return the newest job that did the same, if what it made is still there."""
        if not isinstance(kind, ReusableJobKind):
            return None
        jobs = (job for job in self.select(kind.name) if job.key == key)
        newest = next((job for job in jobs if job.state is JobState.DONE), None)
        return newest if newest is not None and kind.result_exists(newest) else None

    @contextmanager
    def _held_back(self, job: Job) -> Iterator[None]:
        """Let no job for the same begin before this one has left the disk."""
        held = (job.kind, job.key)
        self._ending.append(held)
        try:
            yield
        finally:
            self._ending.remove(held)
            self._pump()

    async def _end(self, job: Job) -> None:
        """Give a job its last state for now, then stop its task: the state says why it stopped."""
        running = self._running.pop(job.id, None)
        await self._set(evolve(job, rate_per_s=None, remaining_s=None))
        await _cancel([running] if running else [])

    def _pump(self) -> None:
        """Run what may run: the oldest of each kind, as many as the kind allows."""
        for job in list(self._jobs.values()):
            kind = self._kinds.get(job.kind)
            if kind and job.state is JobState.QUEUED and self._may_run(job, kind):
                self._jobs[job.id] = evolve(job, state=JobState.RUNNING)
                task = asyncio.ensure_future(self._run(job.id, kind))
                self._running[job.id] = _Running(kind, task)

    def _may_run(self, job: Job, kind: JobKind) -> bool:
        running = sum(self._jobs[job_id].kind == kind.name for job_id in self._running)
        return running < kind.parallel and (job.kind, job.key) not in self._ending

    async def _run(self, job_id: str, kind: JobKind) -> None:
        await self._set(self._jobs[job_id])
        try:
            spec = msgspec.convert(self._jobs[job_id].spec, kind.spec)
            result = await kind.run(spec, _Progress(partial(self._move, job_id)))
            await self._on_done()
            last = evolve(self._jobs[job_id], state=JobState.DONE, result=dict(result))
        except LmxError as error:
            last = self._failed(job_id, error)
        # A kind is a plugin's: it may fail in any way, and the others go on.
        except (Exception, SystemExit) as error:
            log.exception("job_failed", job=job_id)
            last = self._failed(job_id, InternalError(f"{type(error).__name__}: {error}"))
        running = self._running.get(job_id)
        if running is not None and running.task is asyncio.current_task():
            del self._running[job_id]
            await self._set(evolve(last, rate_per_s=None, remaining_s=None))
            self._pump()

    def _failed(self, job_id: str, error: LmxError) -> Job:
        reason = JobError(code=error.code, message=error.message)
        return evolve(self._jobs[job_id], state=JobState.FAILED, error=reason)

    async def _set(self, job: Job) -> None:
        self._jobs[job.id] = job = evolve(job, updated_at=time.time())
        forgotten = self._forget() if job.state not in OPEN else []
        self._tell(job)
        await self._on_disk(partial(self._write, forgotten, job))

    def _forget(self) -> list[str]:
        """Forget the jobs that ended first, beyond what is kept, and return their ids."""
        ended = [job for job in self._jobs.values() if job.state not in OPEN]
        old = sorted(ended, key=lambda job: job.updated_at)[:-KEPT]
        for job in old:
            del self._jobs[job.id]
        return [job.id for job in old]

    def _move(self, job_id: str, values: Mapping[str, Any], is_due: bool) -> None:
        job = self._jobs[job_id]
        if job.state is JobState.RUNNING:
            job = self._jobs[job_id] = evolve(job, **values, updated_at=time.time())
            if is_due:
                self._tell(job)
                self._writer.submit(self._write, [], job)

    def _tell(self, job: Job) -> None:
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


class _Progress:
    """Turns what a kind reports into what is told: with a rate, and not too often."""

    def __init__(self, move: Callable[[Mapping[str, Any], bool], None]) -> None:
        self._move = move
        self._rate = RateMeter()
        self._told = 0.0

    def __call__(self, done: float, total: float | None = None, note: str = "") -> None:
        now = time.monotonic()
        rate = self._rate.at(now, done)
        remaining = (total - done) / rate if total is not None and rate and rate > 0 else None
        is_due = now - self._told >= TELL_S
        self._told = now if is_due else self._told
        values = {
            "done": done,
            "total": total,
            "note": note,
            "rate_per_s": rate,
            "remaining_s": remaining,
        }
        self._move(values, is_due)


async def _discard(kind: JobKind, job: Job) -> None:
    try:
        await kind.discard(msgspec.convert(job.spec, kind.spec))
    # A kind is a plugin's: it may fail in any way, also where it has another spec by now.
    except (Exception, SystemExit):
        log.exception("job_not_discarded", job=job.id)


async def _cancel(running: Iterable[_Running]) -> None:
    tasks = [one.task for one in running]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
