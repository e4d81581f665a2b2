"""The kind of job that downloads a model."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from typing import Any

from attrs import frozen

from lmx_hub.names import check_repo, check_revision
from lmx_hub.place import Place
from lmx_hub.reference import parse_reference
from lmx_hub.settings import HubSettings
from lmx_kernel.errors import InvalidRequestError, LmxError
from lmx_kernel.interfaces import Report
from lmx_kernel.jobs.child import run_child
from lmx_kernel.models.labels import as_label

VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")  # as the hub's own library reads them
QUIET = {
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_XET": "1",
}
DEFAULT_REVISION = "main"


@frozen
class DownloadSpec:
    """A model to download.

    :param repo: ``publisher/name`` on the hub; may have ``:Q4_K_M`` or ``@Q4_K_M`` behind it, or be
        the address of the model's page, of a folder or of a GGUF file there.
    :param revision: a branch, a tag or a commit.
    :param quantization: which one, of a GGUF repository that has several, such as ``Q4_K_M``;
        without it the first of a list of good ones is taken.
    :param files: names of files, or patterns with ``*``, to take instead of what LMX would choose.
    """

    repo: str
    revision: str = DEFAULT_REVISION
    quantization: str | None = None
    files: tuple[str, ...] | None = None


class Downloads:
    """Downloads models, each in a child process that ends when it is cancelled.

    The result says which ``files`` came, how many ``bytes`` they have, and in which folder
    (``model``) they lie; and which ``quantization`` it is, of which ``quantizations``.

    :param count: called at the end of each, with ``ok`` or an error's code, and the bytes.
    """

    name = "download"
    unit = "bytes"
    spec = DownloadSpec

    def __init__(
        self, settings: HubSettings, count: Callable[[str, int], None] = lambda *_: None
    ) -> None:
        self.parallel = settings.parallel
        self._settings = settings
        self._count = count

    def key(self, spec: DownloadSpec) -> str:
        """Return ``repo@revision:quantization``, and the files where they are named.

        :raises InvalidRequestError: a name is not one.
        """
        spec = self._resolved(spec)
        files = "/" + ",".join(spec.files) if spec.files else ""
        return f"{spec.repo}@{spec.revision}:{spec.quantization or ''}{files}"

    async def run(self, spec: DownloadSpec, report: Report) -> Mapping[str, Any]:
        """Download, from where an earlier run stopped. While the hub is away, wait for it, and
        report that.

        :raises LmxError: the model is missing, closed, damaged or refused; the hub is away; the
            disk is full.
        """
        settings, spec = self._settings, self._resolved(spec)
        order = {
            "repo": spec.repo,
            "revision": spec.revision,
            "quantization": spec.quantization,
            "files": spec.files,
            "key": self.key(spec),
            "root": str(settings.folder),
            "endpoint": settings.endpoint,
            "reserve_bytes": settings.reserve_bytes,
            "stall_timeout_s": settings.stall_timeout_s,
            "wait_s": settings.wait_s,
        }
        token = settings.token or next(filter(None, map(os.environ.get, VARIABLES)), "")
        secrets = {"HF_TOKEN": token} if token else {}
        try:
            result = await run_child(
                "lmx_hub.fetch:fetch", order, report, env=QUIET, secrets=secrets
            )
        except LmxError as error:
            self._count(error.code, 0)
            raise
        self._count("ok", result["bytes"])
        return result

    async def discard(self, spec: DownloadSpec) -> None:
        """Remove what has come of a download that will not go on."""
        spec = self._resolved(spec)
        place = Place.of(self._settings.folder, spec.repo, self.key(spec))
        await asyncio.to_thread(place.discard)

    def _resolved(self, spec: DownloadSpec) -> DownloadSpec:
        """Return what a spec means, with a checked ``publisher/name``.

        :raises InvalidRequestError: a name is not one, or is contradicted by another field.
        """
        endpoint = self._settings.endpoint or os.environ.get("HF_ENDPOINT", "")
        found = parse_reference(spec.repo, endpoint)
        check_repo(found.repo)
        revision = spec.revision
        if revision == DEFAULT_REVISION and found.revision is not None:
            revision = found.revision
        check_revision(revision)
        named = {as_label(one) for one in (spec.quantization, found.quantization) if one}
        if len(named) > 1:
            raise InvalidRequestError(
                "repo and quantization name different quantizations: leave one out",
                param="quantization",
            )
        return DownloadSpec(
            repo=found.repo,
            revision=revision,
            quantization=next(iter(named), None),
            files=spec.files or found.files,
        )
