"""``/api/v1/models/download``."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import msgspec
from attrs import frozen
from falcon.asgi import Request, Response

from lmx_kernel.dialect.audit import audited
from lmx_kernel.errors import LmxError, ModelNotFoundError, NotFoundError
from lmx_kernel.http.json_body import read_body, send
from lmx_kernel.interfaces import OPEN, Job, JobState, Kernel
from lmx_kernel.types import ModelCard
from lmx_lmstudio_api.v1.errors import JobNotFoundError
from lmx_lmstudio_api.v1.model_objects import Download, DownloadList
from lmx_lmstudio_api.v1.model_schema import DownloadModelBody

KIND = "download"
MAX_LISTED = 100
_ADDRESS = re.compile(r"^https?://[^/]+/|^hf://")
_STATUS: dict[JobState, Any] = {
    JobState.QUEUED: "downloading",
    JobState.RUNNING: "downloading",
    JobState.PAUSED: "paused",
    JobState.DONE: "completed",
    JobState.FAILED: "failed",
    JobState.CANCELLED: "failed",
}


@frozen
class Downloads:
    """Starts downloads."""

    kernel: Kernel

    async def on_post(self, req: Request, resp: Response) -> None:
        """Start one, or return the one of the same model that runs; unless the model is there.

        :raises LmxError: the name is none of the hub's, or no active plugin downloads.
        """
        body = await read_body(req, DownloadModelBody)
        with audited(req, KIND, body.model):
            if card := self._present(body):
                there: Download = {
                    "status": "already_downloaded",
                    "total_size_bytes": card.size_bytes,
                }
                send(resp, there)
                return
            spec = {"repo": body.model, "quantization": body.quantization}
            kind = self.kernel.jobs.kind(KIND)
            try:
                job = await self.kernel.jobs.start(KIND, msgspec.convert(spec, kind.spec))
            except LmxError as error:
                error.param = "model" if error.param == "repo" else error.param
                raise
        send(resp, _download(job))

    def _present(self, body: DownloadModelBody) -> ModelCard | None:
        """Return the model that is asked for, if it is on disk and whole."""
        name = _ADDRESS.sub("", body.model)
        if body.quantization:
            name = f"{name.partition('@')[0]}@{body.quantization}"
        try:
            card = self.kernel.find(name)
        except ModelNotFoundError:
            return None
        return card if card.problem is None else None


@frozen
class AllDownloads:
    """The state of all downloads."""

    kernel: Kernel

    async def on_get(self, req: Request, resp: Response) -> None:
        """List the newest ones."""
        jobs = self.kernel.jobs.select(KIND, MAX_LISTED)
        found: DownloadList = {"jobs": list(map(_download, jobs))}
        send(resp, found)


@frozen
class OneDownload:
    """The state of one download."""

    kernel: Kernel

    async def on_get(self, req: Request, resp: Response, job_id: str) -> None:
        """Show it.

        :raises JobNotFoundError: there is none of that id.
        """
        try:
            job = self.kernel.jobs.get(job_id)
        except NotFoundError:
            job = None
        if job is None or job.kind != KIND:
            raise JobNotFoundError(f'No download has the id "{job_id[:200]}".', param="job_id")
        send(resp, _download(job))


def _download(job: Job) -> Download:
    found: Download = {
        "job_id": job.id,
        "status": _STATUS[job.state],
        "downloaded_bytes": int(job.done),
        "started_at": _iso(job.created_at),
    }
    if job.total is not None:
        found["total_size_bytes"] = int(job.total)
    if job.rate_per_s is not None:
        found["bytes_per_second"] = job.rate_per_s
    if job.remaining_s is not None:
        found["estimated_completion"] = _iso(job.updated_at + job.remaining_s)
    if job.state not in OPEN:
        found["completed_at"] = _iso(job.updated_at)
    if job.error is not None:
        found["error"] = job.error.message
    return found


def _iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
