"""``/files``: what clients upload to show it to a model."""

from __future__ import annotations

import binascii
import mimetypes
import secrets
from base64 import b64decode
from pathlib import PurePosixPath
from typing import Any

from msgspec import Struct

from lmx_kernel.errors import InvalidRequestError
from lmx_lmstudio_api.websocket.models import Name
from lmx_lmstudio_api.websocket.namespace import Namespace, Rpc

_TYPES = {"text/plain": "text/plain", "application/pdf": "application/pdf"}
_WORD = ("application/msword", "application/vnd.openxmlformats-officedocument")


class UploadBody(Struct, rename="camel", frozen=True):
    """The parameter of ``uploadFileBase64``."""

    name: Name
    content_base64: str


async def upload(body: UploadBody) -> dict[str, Any]:
    """Take a file. Its content is not kept: no model here can take a file, which is said where one
    is used.
    """
    try:
        size_bytes = len(b64decode(body.content_base64, validate=True))
    except (binascii.Error, ValueError):
        where = "contentBase64"
        raise InvalidRequestError(f"{where}: this is no Base64", param=where) from None
    suffix = PurePosixPath(body.name).suffix[:16]
    return {
        "identifier": f"{secrets.token_hex(12)}{suffix}",
        "fileType": _file_type(body.name),
        "sizeBytes": size_bytes,
    }


FILES = Namespace("/files", rpcs={"uploadFileBase64": Rpc(UploadBody, upload)})


def _file_type(name: str) -> str:
    kind = mimetypes.guess_type(name, strict=False)[0] or ""
    if kind.startswith("image/"):
        return "image"
    if kind.startswith(_WORD):
        return "application/word"
    return _TYPES.get(kind) or ("text/other" if kind.startswith("text/") else "unknown")
