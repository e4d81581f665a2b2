"""``/repository``: models of the hub."""

from __future__ import annotations

from typing import Any

import msgspec
from attrs import frozen
from msgspec import Struct

from lmx_kernel.dialect.audit import audited_for
from lmx_kernel.dialect.job_watch import JobWatch, check_done
from lmx_kernel.dialect.owner import owner_of
from lmx_kernel.errors import LmxError, ModelNotFoundError
from lmx_kernel.interfaces import Job, Kernel
from lmx_kernel.types import ModelCard
from lmx_lmstudio_api.v1.downloads import KIND
from lmx_lmstudio_api.v1.surface import DOWNLOAD
from lmx_lmstudio_api.websocket.channel import Channel
from lmx_lmstudio_api.websocket.errors import CancelledError
from lmx_lmstudio_api.websocket.models import Name
from lmx_lmstudio_api.websocket.namespace import ChannelKind, Namespace, Rpc

HUB = "hf"


class SearchOptions(Struct, rename="camel", frozen=True):
    """What is looked for."""

    search_term: str | None = None


class SearchBody(Struct, frozen=True):
    """The parameter of ``searchModels``."""

    opts: SearchOptions = SearchOptions()


class ResultIdentifier(Struct, frozen=True):
    """A model that was found."""

    identifier: Name


class OptionsBody(Struct, rename="camel", frozen=True):
    """The parameter of ``getModelDownloadOptions``."""

    model_search_result_identifier: ResultIdentifier


class DownloadBody(Struct, rename="camel", frozen=True):
    """What a channel ``downloadModel`` is created with."""

    download_identifier: Name


@frozen
class Repository:
    """Downloads models.

    :param heartbeat_s: after so long without progress, the last one is sent again.
    """

    kernel: Kernel
    heartbeat_s: float

    @property
    def namespace(self) -> Namespace:
        """What clients may ask for."""
        return Namespace(
            "/repository",
            rpcs={
                "searchModels": Rpc(SearchBody, self.search),
                "getModelDownloadOptions": Rpc(OptionsBody, self.options),
            },
            channels={"downloadModel": ChannelKind(DownloadBody, self.download, lambda: DOWNLOAD)},
        )

    async def search(self, body: SearchBody) -> dict[str, Any]:
        """Return the model of the hub that is named: nothing is searched for."""
        term = (body.opts.search_term or "").strip()
        if term.count("/") != 1:
            return {"results": []}
        identifier = {"type": HUB, "identifier": term}
        return {"results": [{"name": term, "identifier": identifier, "exact": True}]}

    async def options(self, body: OptionsBody) -> dict[str, Any]:
        """Return the one way to download a model: what LMX would choose. The hub is not asked, so
        its size is not known.
        """
        name = body.model_search_result_identifier.identifier
        option = {
            "name": name,
            "sizeBytes": 0,
            "fitEstimation": "fitWithoutGPU",
            "recommended": True,
            "downloadIdentifier": name,
            "indexedModelIdentifier": name,
            "compatibilityType": "gguf",
        }
        return {"results": [option]}

    async def download(self, channel: Channel, body: DownloadBody) -> dict[str, Any]:
        """Download a model, or join the download of it that runs, unless it is there. It goes on if
        the client leaves; one that is cancelled is stopped.
        """
        name = body.download_identifier
        with audited_for(owner_of(self.kernel), KIND, name):
            card = self._present(name)
            if card is None:
                await self._follow(channel, await self._start(name))
                card = self._present(name)
        await channel.send({"type": "startFinalizing"})
        return {"type": "success", "defaultIdentifier": card.id if card else name}

    async def _start(self, name: str) -> Job:
        kind = self.kernel.jobs.kind(KIND)
        try:
            return await self.kernel.jobs.start(KIND, msgspec.convert({"repo": name}, kind.spec))
        except LmxError as error:
            error.param = "downloadIdentifier" if error.param == "repo" else error.param
            raise

    async def _follow(self, channel: Channel, job: Job) -> None:
        """Tell of a job until it has ended.

        :raises LmxError: it failed, or was stopped.
        """
        watch = JobWatch(self.kernel, job.id)
        channel.on_cancel(watch.wake)
        try:
            has_ended = False
            while not has_ended:
                await channel.send({"type": "downloadProgress", "update": _progress(watch.job)})
                has_ended = await watch.next(self.heartbeat_s)
                if channel.is_cancelled and not has_ended:
                    await self.kernel.jobs.cancel(job.id)
                    raise CancelledError("the download was cancelled")
        finally:
            watch.close()
        check_done(watch.job)
        await channel.send({"type": "downloadProgress", "update": _progress(watch.job)})

    def _present(self, name: str) -> ModelCard | None:
        """Return a model that is on disk and whole."""
        try:
            card = self.kernel.find(name)
        except ModelNotFoundError:
            return None
        return card if card.problem is None else None


def _progress(job: Job) -> dict[str, Any]:
    return {
        "downloadedBytes": round(job.done),
        "totalBytes": round(job.total or 0),
        "speedBytesPerSecond": job.rate_per_s or 0.0,
    }
