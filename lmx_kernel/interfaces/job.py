"""Long work that is started, watched and stopped by its id."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Protocol, runtime_checkable

from attrs import frozen


class JobState(StrEnum):
    """Where a job is in its life."""

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

    :ivar key: what identical jobs have in common.
    :ivar spec: what was asked for, as JSON.
    :ivar done: of ``total``, in ``unit``; the total is None while it is not known.
    :ivar note: what is being worked on.
    :ivar rate_per_s: of the last seconds; None while it does not run.
    :ivar remaining_s: at that rate.
    :ivar created_at: seconds since the epoch, as ``updated_at``.
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
    """How a running job tells of itself; cheap, and may be called often."""

    def __call__(self, done: float, total: float | None = None, note: str = "") -> None:
        """Say that ``done`` of ``total`` units of the job's kind are done.

        :param total: None where it is not known yet.
        :param note: what is being worked on.
        """
        ...


class JobKind(Protocol):
    """Long work that runs beside the requests: started, watched and stopped by its id.

    A job outlives the daemon: one that was cut off is run again at the next start, so ``run`` goes
    on from what it left on disk, or begins anew.

    :ivar name: such as ``download``.
    :ivar unit: what its progress counts, such as ``bytes``.
    :ivar spec: the attrs class that describes one job; it must survive JSON.
    :ivar parallel: how many of this kind run at once; the others wait in line.
    """

    name: str
    unit: str
    spec: type[Any]
    parallel: int

    def key(self, spec: Any) -> str:
        """Return what two calls that want the same have in common: the second joins the first."""
        ...

    async def run(self, spec: Any, report: Report) -> Mapping[str, Any]:
        """Do it and return the result. Cancelled when the job is paused or cancelled.

        :raises LmxError: it failed, with the reason for the user.
        """
        ...

    async def discard(self, spec: Any) -> None:
        """Remove what an unfinished job left behind: it was cancelled, and will not go on."""
        ...


@runtime_checkable
class ReusableJobKind(JobKind, Protocol):
    """A kind whose work need not be done again while what it made is there."""

    def result_exists(self, done: Job) -> bool:
        """Tell whether what a job made is still there as it left it: who wants the same is told of
        that job.
        """
        ...
