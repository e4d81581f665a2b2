"""``/admin/jobs``, and the paths of single kinds of jobs."""

from __future__ import annotations

from typing import Any, Literal

import attrs
from attrs import frozen
from falcon.asgi import Request, Response

from lmx_admin_api.parsing import convert, read_body, read_query
from lmx_admin_api.schema import JobList, JobsQuery, LimitQuery, StartBody
from lmx_kernel.dialect.audit import audited
from lmx_kernel.errors import NotFoundError
from lmx_kernel.http.json_body import send
from lmx_kernel.interfaces import Job, Kernel

Action = Literal["pause", "resume", "cancel"]


@frozen
class AllJobs:
    """Jobs of every kind."""

    kernel: Kernel

    async def on_get(self, req: Request, resp: Response) -> None:
        """List them, or those of one kind."""
        query = read_query(req, JobsQuery)
        send(resp, _listed(self.kernel, query.kind, query.limit))

    async def on_post(self, req: Request, resp: Response) -> None:
        """Start one, or return the one that does the same already."""
        body: StartBody = await read_body(req, StartBody)
        spec = convert(body.spec, self.kernel.jobs.kind(body.kind).spec)
        await _start(self.kernel, body.kind, spec, req, resp)


@frozen
class StartJob:
    """Starts jobs of one kind, which some plugin offers."""

    kernel: Kernel
    kind: str

    async def on_post(self, req: Request, resp: Response) -> None:
        """Start one, or return the one that does the same already."""
        await start_job(self.kernel, self.kind, req, resp)


@frozen
class JobsOfKind:
    """Jobs of one kind."""

    kernel: Kernel
    kind: str

    async def on_get(self, req: Request, resp: Response) -> None:
        """List them."""
        send(resp, _listed(self.kernel, self.kind, read_query(req, LimitQuery).limit))


@frozen
class Downloads(JobsOfKind):
    """Downloads."""

    async def on_post(self, req: Request, resp: Response) -> None:
        """Start one, or return the one that does the same already."""
        await start_job(self.kernel, self.kind, req, resp)


@frozen
class OneJob:
    """A job.

    :ivar kind: what it must be; None for any.
    """

    kernel: Kernel
    kind: str | None = None

    async def on_get(self, _req: Request, resp: Response, id: str) -> None:  # noqa: A002
        """Show it."""
        send(resp, find_job(self.kernel, id, self.kind))


@frozen
class ChangeJob:
    """Stops a job for now or for good, or goes on with it."""

    kernel: Kernel
    action: Action
    kind: str | None = None

    async def on_post(self, req: Request, resp: Response, id: str) -> None:  # noqa: A002
        """Do it."""
        with audited(req, self.action, id):
            job = find_job(self.kernel, id, self.kind)
            job = await getattr(self.kernel.jobs, self.action)(job.id)
        send(resp, job)


async def start_job(kernel: Kernel, kind_name: str, req: Request, resp: Response) -> None:
    """Start what the body describes."""
    spec = await read_body(req, kernel.jobs.kind(kind_name).spec)
    await _start(kernel, kind_name, spec, req, resp)


def find_job(kernel: Kernel, job_id: str, kind: str | None) -> Job:
    """Return a job.

    :raises NotFoundError: there is none of that id and kind.
    """
    job = kernel.jobs.get(job_id)
    if kind not in (None, job.kind):
        raise NotFoundError(f"{job.id} is no {kind}")
    return job


async def _start(kernel: Kernel, kind: str, spec: Any, req: Request, resp: Response) -> None:
    with audited(req, kind, _summary(spec)):
        job = await kernel.jobs.start(kind, spec)
    send(resp, job, 202)


def _listed(kernel: Kernel, kind: str | None, limit: int) -> JobList:
    return JobList(jobs=tuple(kernel.jobs.select(kind, limit)))


def _summary(spec: Any) -> str:
    return " ".join(f"{name}={value}" for name, value in attrs.asdict(spec).items() if value)
