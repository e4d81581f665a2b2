"""``/api/pull``: downloads, line by line."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import msgspec
from attrs import frozen
from falcon.asgi import Request, Response

from lmx_kernel.dialect.audit import audited
from lmx_kernel.errors import (
    ConflictError,
    InvalidRequestError,
    LmxError,
    ModelNotFoundError,
    UnavailableError,
    from_code,
)
from lmx_kernel.events import JobChanged, KernelEvent, Stopping
from lmx_kernel.http.json_body import read_body, send
from lmx_kernel.http.sse import close_with_request, send_stream
from lmx_kernel.interfaces import PENDING, Job, JobState, Kernel
from lmx_ollama_api.details import digest
from lmx_ollama_api.lines import NDJSON, encode_line, error_line
from lmx_ollama_api.names import LATEST, named, resolve, split_tag, strip_hub
from lmx_ollama_api.objects import Progress
from lmx_ollama_api.schema import PullBody
from lmx_ollama_api.settings import OllamaSettings

KIND = "download"
SUCCESS: Progress = {"status": "success"}


@frozen
class Pull:
    """Downloads models from the hub. A client that leaves does not stop the download."""

    kernel: Kernel
    settings: OllamaSettings

    async def on_post(self, req: Request, resp: Response) -> None:
        """Download one, or join the download of it that runs."""
        body = await read_body(req, PullBody)
        name = named(body)
        with audited(req, KIND, name):
            job = await self._start(name)
        is_whole = body.stream is False
        if job is None:
            if is_whole:
                send(resp, SUCCESS)
            else:
                resp.content_type, resp.data = NDJSON, encode_line(SUCCESS)
            return
        watch = JobWatch(self.kernel, job.id)
        close_with_request(watch.close)
        if not is_whole:
            send_stream(resp, self._lines(watch), NDJSON)
            return
        while not await watch.next(None):
            pass
        _check(watch.job)
        send(resp, SUCCESS)

    async def _start(self, name: str) -> Job | None:
        """Return the job that downloads a model; None where ``name`` is not one of the hub, and the
        model is here.

        :raises InvalidRequestError: it is not one of the hub, and there is no such model here.
        :raises LmxError: the download is refused.
        """
        repo, tag = split_tag(strip_hub(name))
        if repo.count("/") != 1:
            with suppress(ModelNotFoundError):
                self.kernel.find(resolve(self.kernel, name))
                return None
            raise InvalidRequestError(
                "model: models come from the Hugging Face hub, where they are named publisher/name "
                "or, with a quantization, publisher/name:Q4_K_M",
                param="model",
            )
        kind = self.kernel.jobs.kind(KIND)
        spec = {"repo": repo, "quantization": None if tag in ("", LATEST) else tag}
        return await self.kernel.jobs.start(KIND, msgspec.convert(spec, kind.spec))

    async def _lines(self, watch: JobWatch) -> AsyncIterator[bytes]:
        ended = False
        while not ended:
            yield encode_line(_progress(watch.job))
            ended = await watch.next(self.settings.heartbeat_s)
        try:
            _check(watch.job)
        except LmxError as error:
            yield error_line(error)
        else:
            yield encode_line(_progress(watch.job)) + encode_line(SUCCESS)


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


def _progress(job: Job) -> Progress:
    if job.total is None:
        return {"status": "pulling manifest"}
    return {
        "status": f"pulling {job.key}",
        "digest": f"sha256:{digest(job.key)}",
        "total": round(job.total),
        "completed": round(job.done),
    }


def _check(job: Job) -> None:
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
