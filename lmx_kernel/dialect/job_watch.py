"""A job as a client follows it, and how it ended."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from lmx_kernel.errors import ConflictError, UnavailableError, from_code
from lmx_kernel.events import JobChanged, KernelEvent, Stopping
from lmx_kernel.interfaces import PENDING, Job, JobState, Kernel


class JobWatch:
    """Follows a job.

    :ivar job: as it was when it was last looked at.
    """

    def __init__(self, kernel: Kernel, job_id: str) -> None:
        self.job = kernel.jobs.get(job_id)
        self._kernel = kernel
        self._changed = asyncio.Event()
        self._listening = kernel.listen(self._note)
        self._listening.__enter__()

    def close(self) -> None:
        """Follow it no more."""
        self._listening.__exit__(None, None, None)

    def wake(self) -> None:
        """End the wait for a change."""
        self._changed.set()

    async def next(self, limit_s: float | None) -> bool:
        """Wait until the job changes, for ``limit_s`` at most, and return whether it has ended, or
        will not go on by itself.
        """
        if self.job.state in PENDING and not self._kernel.draining:
            with suppress(TimeoutError):
                async with asyncio.timeout(limit_s):
                    await self._changed.wait()
            self._changed.clear()
            self.job = self._kernel.jobs.get(self.job.id)
        return self.job.state not in PENDING or self._kernel.draining

    def _note(self, event: KernelEvent) -> None:
        if isinstance(event, Stopping) or (
            isinstance(event, JobChanged) and event.id == self.job.id
        ):
            self._changed.set()


def check_done(job: Job) -> None:
    """Return if the job succeeded.

    :raises LmxError: it did not.
    """
    if job.state is JobState.DONE:
        return
    if job.error is not None:
        raise from_code(job.error.code, job.error.message)
    if job.state in PENDING:
        raise UnavailableError("the server is stopping; the download goes on at its next start")
    raise ConflictError(f"the download was {job.state}")
