"""``/api/embed``, and the older ``/api/embeddings``."""

from __future__ import annotations

import asyncio
import time
from array import array
from collections.abc import Sequence

import msgspec
from attrs import frozen
from falcon.asgi import Request, Response

from lmx_kernel.dialect.vectors import shortened
from lmx_kernel.errors import InvalidRequestError
from lmx_kernel.http.json_body import read_body, send
from lmx_kernel.interfaces import Kernel
from lmx_kernel.types import Embeddings, TextPrompt
from lmx_ollama_api.keep_alive import KeepAlive, Loader
from lmx_ollama_api.names import known_as, resolve
from lmx_ollama_api.rendering import nanoseconds
from lmx_ollama_api.schema import EmbedBody, EmbeddingsBody

MAX_TEXTS = 2048


@frozen
class Embed:
    """Turns texts into vectors."""

    kernel: Kernel

    async def on_post(self, req: Request, resp: Response) -> None:
        """Embed one text, or several."""
        begun = time.monotonic()
        body = await read_body(req, EmbedBody)
        texts = [body.input] if isinstance(body.input, str) else body.input
        if len(texts) > MAX_TEXTS:
            raise InvalidRequestError(f"input: more than {MAX_TEXTS} texts", param="input")
        found = await _embed(self.kernel, body, [text for text in texts if text or len(texts) > 1])
        vectors = []
        for vector in found.vectors:
            short = shortened(vector, body.dimensions) if body.dimensions else vector
            vectors.append(_encode(short))
            await asyncio.sleep(0)  # so many numbers take long to write
        answer = {
            "model": body.model,
            "embeddings": vectors,
            "total_duration": nanoseconds(time.monotonic() - begun),
            "prompt_eval_count": found.prompt_tokens,
        }
        send(resp, answer)


@frozen
class OldEmbeddings:
    """Turns one text into a vector."""

    kernel: Kernel

    async def on_post(self, req: Request, resp: Response) -> None:
        """Embed it."""
        body = await read_body(req, EmbeddingsBody)
        found = await _embed(self.kernel, body, [body.prompt] if body.prompt else [])
        send(resp, {"embedding": _encode(found.vectors[0]) if found.vectors else []})


async def _embed(
    kernel: Kernel, body: EmbedBody | EmbeddingsBody, texts: Sequence[str]
) -> Embeddings:
    """Return the vectors of ``texts``; without any, the model is only loaded, or unloaded."""
    keep_alive, loader = KeepAlive.parse(body.keep_alive), Loader(kernel)
    if not texts:
        await loader.load(body.model, keep_alive)
        return Embeddings(model=body.model, vectors=(), prompt_tokens=0)
    with known_as(body.model):
        model = resolve(kernel, body.model)
        found = await kernel.embed(model, [TextPrompt(text) for text in texts])
    loader.keep(found.model, keep_alive)
    return found


def _encode(vector: array[float]) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(vector.tolist()))
