"""A job: one piece of long work, as it is told to clients and kept on disk."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

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
