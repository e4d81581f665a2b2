"""``/api/v1`` as the kernel's HTTP server sees it."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from lmx_openai_api.early_load import EarlyLoads

from lmx_kernel.errors import LmxError
from lmx_kernel.interfaces import Kernel, Operation
from lmx_lmstudio_api.settings import LMStudioSettings
from lmx_lmstudio_api.v1.chat import Chat
from lmx_lmstudio_api.v1.chat_objects import ChatEvent, ChatResult
from lmx_lmstudio_api.v1.chat_schema import StatefulChatBody
from lmx_lmstudio_api.v1.downloads import AllDownloads, Downloads, OneDownload
from lmx_lmstudio_api.v1.errors import error_object
from lmx_lmstudio_api.v1.model_objects import (
    Download,
    DownloadList,
    LoadedModel,
    LocalModels,
    UnloadedModel,
)
from lmx_lmstudio_api.v1.model_schema import DownloadModelBody, LoadModelBody, UnloadModelBody
from lmx_lmstudio_api.v1.models import Load, Models, Unload

PREFIX = "/api/v1"
MODELS, CHAT = f"{PREFIX}/models", f"{PREFIX}/chat"
LOAD, UNLOAD, DOWNLOAD = f"{MODELS}/load", f"{MODELS}/unload", f"{MODELS}/download"
STATUS = f"{DOWNLOAD}/status"


class LMStudioV1:
    """LM Studio's API, version 1: the models on disk, and chats that the server keeps."""

    name = "lmstudio_v1"
    prefix = PREFIX
    scope = "inference"

    def __init__(self, kernel: Kernel, settings: LMStudioSettings) -> None:
        self._kernel = kernel
        self._settings = settings

    def routes(self) -> Iterable[tuple[str, object]]:
        """Return pairs of a falcon URI template and a resource."""
        return [
            (MODELS, Models(self._kernel)),
            (CHAT, Chat(self._kernel, self._settings, EarlyLoads(self._kernel))),
        ]

    def operations(self) -> Iterable[Operation]:
        """Return what each route takes and gives."""
        return [
            Operation(method="GET", path=MODELS, summary="List the models", result=LocalModels),
            Operation(
                method="POST",
                path=CHAT,
                summary="Answer a chat, and keep it",
                body=StatefulChatBody,
                result=ChatResult,
                streams=True,
                event=ChatEvent,
            ),
        ]

    def render_error(self, error: LmxError) -> Mapping[str, Any]:
        """Return the error body of this API."""
        return error_object(error)

    def example(self, url: str, model: str) -> str:
        """Return a line to try in a shell."""
        body = msgspec.json.encode({"model": model, "input": "Hello!"}).decode()
        return f"curl {url}{CHAT} -d {shlex.quote(body)}"


class LMStudioManagement:
    """LM Studio's API, version 1: loads, unloads and downloads. They need the scope ``admin``, so
    each of these paths is a surface of its own below that of the models.

    :param path: the one that this surface owns.
    """

    scope = "admin"

    def __init__(self, kernel: Kernel, path: str) -> None:
        self._kernel = kernel
        self.prefix = path
        self.name = f"lmstudio_{path.rpartition('/')[2]}"

    def routes(self) -> Iterable[tuple[str, object]]:
        """Return pairs of a falcon URI template and a resource."""
        routes: Mapping[str, object] = {
            LOAD: Load(self._kernel),
            UNLOAD: Unload(self._kernel),
            DOWNLOAD: Downloads(self._kernel),
            STATUS: AllDownloads(self._kernel),
            f"{STATUS}/{{job_id}}": OneDownload(self._kernel),
        }
        return [item for item in routes.items() if item[0].startswith(self.prefix)]

    def operations(self) -> Iterable[Operation]:
        """Return what each route takes and gives."""
        return [one for one in _MANAGEMENT if one.path.startswith(self.prefix)]

    def render_error(self, error: LmxError) -> Mapping[str, Any]:
        """Return the error body of this API."""
        return error_object(error)

    def example(self, url: str, model: str) -> str:
        """Return "": clients call these paths, not people."""
        return ""


_MANAGEMENT = (
    Operation(
        method="POST",
        path=LOAD,
        summary="Load a model, and return when it is ready",
        body=LoadModelBody,
        result=LoadedModel,
    ),
    Operation(
        method="POST",
        path=UNLOAD,
        summary="Unload a model",
        body=UnloadModelBody,
        result=UnloadedModel,
    ),
    Operation(
        method="POST",
        path=DOWNLOAD,
        summary="Download a model",
        body=DownloadModelBody,
        result=Download,
    ),
    Operation(method="GET", path=STATUS, summary="List the downloads", result=DownloadList),
    Operation(
        method="GET",
        path=f"{STATUS}/{{job_id}}",
        summary="Show a download",
        result=Download,
    ),
)


def surfaces(
    kernel: Kernel, settings: LMStudioSettings
) -> Sequence[LMStudioV1 | LMStudioManagement]:
    """Return all surfaces of this version."""
    management = [LMStudioManagement(kernel, path) for path in (LOAD, UNLOAD, DOWNLOAD)]
    return [LMStudioV1(kernel, settings), *management]
