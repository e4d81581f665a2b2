"""``/api/pull``: downloads, line by line."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress

import msgspec
from attrs import frozen
from falcon.asgi import Request, Response

from lmx_kernel.dialect.audit import audited
from lmx_kernel.dialect.job_watch import JobWatch, check_done
from lmx_kernel.errors import InvalidRequestError, LmxError, ModelNotFoundError
from lmx_kernel.http.json_body import read_body, send
from lmx_kernel.http.sse import close_with_request, send_stream
from lmx_kernel.interfaces import Job, Kernel
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
        check_done(watch.job)
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
            check_done(watch.job)
        except LmxError as error:
            yield error_line(error)
        else:
            yield encode_line(_progress(watch.job)) + encode_line(SUCCESS)


def _progress(job: Job) -> Progress:
    if job.total is None:
        return {"status": "pulling manifest"}
    return {
        "status": f"pulling {job.key}",
        "digest": f"sha256:{digest(job.key)}",
        "total": round(job.total),
        "completed": round(job.done),
    }
