"""Jobs: started, watched and stopped by their ids; those that a stop cut off go on later."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import structlog
from attrs import evolve, frozen

from lmx_kernel.errors import ConflictError, InternalError, LmxError, NotFoundError
from lmx_kernel.events import KernelEvent
from lmx_kernel.interfaces import OPEN, PENDING, Job, JobError, JobKind, JobState, ReusableJobKind
from lmx_kernel.jobs.progress import Progress
from lmx_kernel.jobs.table import JobTable

log = structlog.get_logger(__name__)


@frozen
class _Running:
    """What runs a job, to its end: also when its kind is not offered any more."""

    kind: JobKind
    task: asyncio.Task[None]


class Jobs:
    """Runs jobs. A call for what an open job does already joins that job.

    :param path: where jobs are kept.
    :param publish: is called with every change.
    :param on_done: awaited after a job succeeded: something new may be on disk.
    """

    def __init__(
        self,
        path: Path,
        publish: Callable[[KernelEvent], None],
        on_done: Callable[[], Awaitable[None]],
    ) -> None:
        self._on_done = on_done
        self._kinds: dict[str, JobKind] = {}
        self._table = JobTable(path, publish)
        self._running: dict[str, _Running] = {}
        self._ending: list[tuple[str, str]] = []  # kinds and keys whose jobs leave the disk

    async def open(self, kinds: Iterable[JobKind]) -> None:
        """Offer these kinds and no others, and go on with their jobs that were cut off. May be
        called again when there are others; what runs goes on as it began.
        """
        self._kinds = {kind.name: kind for kind in kinds}
        if self._kinds:
            await self._table.open()
        for job in self._table.oldest_first():
            if job.state is JobState.RUNNING and job.id not in self._running:
                self._table.put(evolve(job, state=JobState.QUEUED))
        self._pump()

    async def close(self) -> None:
        """Stop what runs; it goes on when jobs are opened again."""
        running, self._running = self._running, {}
        self._kinds = {}
        await _cancel(running.values())
        await self._table.close()

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
        return self._table.get(job_id)

    def select(self, kind: str | None = None, limit: int | None = None) -> list[Job]:
        """Return the jobs, of one kind if it is named, newest first.

        :param limit: the most that are returned; None returns all.
        """
        return self._table.select(kind, limit)

    # --- changing ---

    async def start(self, kind_name: str, spec: Any) -> Job:
        """Start a job, or return the one that is open for the same already, or the one that did it
        where its result is still there.

        :param spec: of the kind's own class.
        :raises NotFoundError: no active plugin offers the kind.
        """
        kind = self.kind(kind_name)
        key = kind.key(spec)
        if (job := self._table.find(kind_name, key, OPEN)) is not None:
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
        await self._table.save(job)
        self._pump()
        return self.get(job.id)

    async def pause(self, job_id: str) -> Job:
        """Stop a job for now, and keep what it has.

        :raises NotFoundError: there is none of that id.
        :raises ConflictError: it has ended.
        """
        job = self.get(job_id)
        if job.state not in OPEN:
            raise ConflictError(f"the job is {job.state} and cannot be paused")
        with self._block_same(job):
            await self._end(evolve(job, state=JobState.PAUSED))
        return self.get(job_id)

    async def resume(self, job_id: str) -> Job:
        """Go on with a job that was paused, or try one again that failed; or return the one that
        tries the same already.

        :raises NotFoundError: there is none of that id.
        :raises ConflictError: it is done, or was cancelled.
        """
        job = self.get(job_id)
        if job.state is JobState.FAILED:
            job = self._table.find(job.kind, job.key, OPEN) or job
        if job.state in (JobState.PAUSED, JobState.FAILED):
            self.kind(job.kind)
            await self._table.save(evolve(job, state=JobState.QUEUED, error=None))
            self._pump()
        elif job.state not in PENDING:
            raise ConflictError(f"the job is {job.state} and cannot be resumed")
        return self.get(job.id)

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
        with self._block_same(job):
            await self._end(evolve(job, state=JobState.CANCELLED))
            if kind is not None and self._table.find(job.kind, job.key, OPEN) is None:
                await _discard(kind, job)
        return self.get(job_id)

    # --- inside ---

    def _find_done(self, kind: JobKind, key: str) -> Job | None:
        """Return the newest job that did the same, if its result is still there."""
        if not isinstance(kind, ReusableJobKind):
            return None
        newest = self._table.find(kind.name, key, {JobState.DONE})
        return newest if newest is not None and kind.result_exists(newest) else None

    @contextmanager
    def _block_same(self, job: Job) -> Iterator[None]:
        """Block jobs with the same key until this one's files are removed."""
        blocked = (job.kind, job.key)
        self._ending.append(blocked)
        try:
            yield
        finally:
            self._ending.remove(blocked)
            self._pump()

    async def _end(self, job: Job) -> None:
        """Give a job its last state for now, then stop its task: the state says why it stopped."""
        running = self._running.pop(job.id, None)
        await self._table.save(evolve(job, rate_per_s=None, remaining_s=None))
        await _cancel([running] if running else [])

    def _pump(self) -> None:
        """Run what may run: the oldest of each kind, as many as the kind allows."""
        for job in self._table.oldest_first():
            kind = self._kinds.get(job.kind)
            if kind and job.state is JobState.QUEUED and self._may_run(job, kind):
                self._table.put(evolve(job, state=JobState.RUNNING))
                task = asyncio.ensure_future(self._run(job.id, kind))
                self._running[job.id] = _Running(kind, task)

    def _may_run(self, job: Job, kind: JobKind) -> bool:
        running = sum(self.get(job_id).kind == kind.name for job_id in self._running)
        return running < kind.parallel and (job.kind, job.key) not in self._ending

    async def _run(self, job_id: str, kind: JobKind) -> None:
        await self._table.save(self.get(job_id))
        try:
            spec = msgspec.convert(self.get(job_id).spec, kind.spec)
            result = await kind.run(spec, Progress(partial(self._update, job_id)))
            await self._on_done()
            last = evolve(self.get(job_id), state=JobState.DONE, result=dict(result))
        except LmxError as error:
            last = self._failed(job_id, error)
        # A kind is a plugin's: it may fail in any way, and the others go on.
        except (Exception, SystemExit) as error:
            log.exception("job_failed", job=job_id)
            last = self._failed(job_id, InternalError(f"{type(error).__name__}: {error}"))
        running = self._running.get(job_id)
        if running is not None and running.task is asyncio.current_task():
            del self._running[job_id]
            await self._table.save(evolve(last, rate_per_s=None, remaining_s=None))
            self._pump()

    def _failed(self, job_id: str, error: LmxError) -> Job:
        reason = JobError(code=error.code, message=error.message)
        return evolve(self.get(job_id), state=JobState.FAILED, error=reason)

    def _update(self, job_id: str, values: Mapping[str, Any], is_due: bool) -> None:
        job = self.get(job_id)
        if job.state is JobState.RUNNING:
            job = evolve(job, **values, updated_at=time.time())
            self._table.save_soon(job) if is_due else self._table.put(job)


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
