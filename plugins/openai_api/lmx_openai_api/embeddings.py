"""``/v1/embeddings``."""

from __future__ import annotations

import asyncio
import sys
from array import array
from base64 import b64encode
from collections.abc import Mapping

import msgspec
from falcon.asgi import Request, Response

from lmx_kernel.dialect.vectors import shortened
from lmx_kernel.http.json_body import read_body, send
from lmx_openai_api.early_load import EarlyLoads
from lmx_openai_api.objects import EmbeddingObject
from lmx_openai_api.requests import MAX_EMBEDDED, inputs
from lmx_openai_api.schema import EmbeddingBody


class Embeddings:
    """Turns texts into vectors."""

    def __init__(self, loads: EarlyLoads) -> None:
        self._loads = loads
        self._kernel = loads.kernel

    async def on_post(self, req: Request, resp: Response) -> None:
        """Embed one text, or several."""
        send(resp, await self.embed(await read_body(req, EmbeddingBody)))

    async def embed(self, body: EmbeddingBody) -> Mapping[str, object]:
        """Return the vectors that ``body`` asks for, as an :class:`EmbeddingList`.

        :raises LmxError: the model is unknown or makes none, or a text is too long for it.
        """
        await self._loads.begin(body.model, ttl_s=body.ttl)
        texts = list(inputs("input", body.input, MAX_EMBEDDED))
        found = await self._kernel.embed(body.model, texts)
        data = []
        for index, vector in enumerate(found.vectors):
            data.append(msgspec.Raw(msgspec.json.encode(_embedding(index, vector, body))))
            await asyncio.sleep(0)  # so many numbers take long to write
        usage = {"prompt_tokens": found.prompt_tokens, "total_tokens": found.prompt_tokens}
        return {"object": "list", "data": data, "model": found.model, "usage": usage}


def _embedding(index: int, vector: array[float], body: EmbeddingBody) -> EmbeddingObject:
    if body.dimensions is not None:
        vector = shortened(vector, body.dimensions)
    as_text = body.encoding_format == "base64"
    embedding = _base64(vector) if as_text else vector.tolist()
    return {"object": "embedding", "index": index, "embedding": embedding}


def _base64(vector: array[float]) -> str:
    if sys.byteorder == "big":
        vector = vector[:]
        vector.byteswap()
    return b64encode(vector.tobytes()).decode()
