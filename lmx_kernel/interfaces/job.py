"""Jobs: long work that is started, watched and stopped by id."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Protocol, runtime_checkable

from attrs import frozen


class JobState(StrEnum):
    """The state of a job."""

    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


PENDING = frozenset({JobState.QUEUED, JobState.RUNNING})
OPEN = PENDING | {JobState.PAUSED}


@frozen(kw_only=True)
class JobError:
    """Why a job failed; ``code`` is an error's of :mod:`lmx_kernel.errors`."""

    code: str
    message: str


@frozen(kw_only=True)
class Job:
    """One job.

    :ivar key: equal for jobs that do the same.
    :ivar spec: the description of the work, as JSON.
    :ivar done: how much of ``total`` is done, in ``unit``; the total is None while it is unknown.
    :ivar note: the current step.
    :ivar rate_per_s: units per second, lately; None while it does not run.
    :ivar remaining_s: the expected time to the end, at that rate.
    :ivar created_at: in seconds since the epoch, as ``updated_at``.
    """

    id: str
    kind: str
    key: str
    unit: str
    spec: dict[str, Any]
    state: JobState = JobState.QUEUED
    done: float = 0.0
    total: float | None = None
    note: str = ""
    rate_per_s: float | None = None
    remaining_s: float | None = None
    result: dict[str, Any] | None = None
    error: JobError | None = None
    created_at: float
    updated_at: float


class Report(Protocol):
    """Reports the progress of a running job; cheap, and may be called often."""

    def __call__(self, done: float, total: float | None = None, note: str = "") -> None:
        """Report that ``done`` of ``total`` units of the job's kind are done.

        :param total: None while it is not known.
        :param note: the current step.
        """
        ...


class JobKind(Protocol):
    """A kind of long work that runs beside the requests.

    A job survives a restart of the daemon: one that was interrupted is run again at the next start,
    so ``run`` continues from what it left on disk, or starts again.

    :ivar name: such as ``download``.
    :ivar unit: the unit of its progress, such as ``bytes``.
    :ivar spec: the attrs class that describes one job; it must be convertible to JSON and back.
    :ivar parallel: how many of this kind run at once; the others wait.
    """

    name: str
    unit: str
    spec: type[Any]
    parallel: int

    def key(self, spec: Any) -> str:
        """Return a key that is equal for jobs that do the same: a second call joins the first."""
        ...

    async def run(self, spec: Any, report: Report) -> Mapping[str, Any]:
        """Do the work and return the result. Cancelled when the job is paused or cancelled.

        :raises LmxError: it failed, with the reason for the user.
        """
        ...

    async def discard(self, spec: Any) -> None:
        """Remove what an unfinished job left behind: it was cancelled and will not continue."""
        ...


@runtime_checkable
class ReusableJobKind(JobKind, Protocol):
    """A kind whose work is not repeated while its result exists."""

    def result_exists(self, done: Job) -> bool:
        """Return whether the result of a finished job still exists, unchanged; then a call for the
        same work returns that job.
        """
        ...
