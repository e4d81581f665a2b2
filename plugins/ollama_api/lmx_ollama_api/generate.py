"""``/api/generate``."""

from __future__ import annotations

from contextlib import suppress

from falcon.asgi import Request, Response

from lmx_kernel.dialect.refused import check_supported
from lmx_kernel.errors import ModelNotFoundError
from lmx_kernel.http.json_body import read_body
from lmx_kernel.interfaces import Kernel
from lmx_kernel.types import ModelCard
from lmx_ollama_api.names import resolve
from lmx_ollama_api.rendering import generate_shape
from lmx_ollama_api.requests import generate_request
from lmx_ollama_api.respond import Responder
from lmx_ollama_api.schema import GenerateBody
from lmx_ollama_api.settings import OllamaSettings


class Generate:
    """Answers prompts."""

    def __init__(self, kernel: Kernel, settings: OllamaSettings) -> None:
        self._kernel = kernel
        self._responder = Responder(kernel, settings, generate_shape)

    async def on_post(self, req: Request, resp: Response) -> None:
        """Answer one prompt, or load its model."""
        body = await read_body(req, GenerateBody)
        check_supported(body)
        if not body.prompt:
            await self._responder.load(resp, body)
            return
        model = resolve(self._kernel, body.model)
        await self._responder.respond(resp, body, generate_request(body, model, self._card(model)))

    def _card(self, model: str) -> ModelCard | None:
        with suppress(ModelNotFoundError):
            return self._kernel.find(model)
        return None
