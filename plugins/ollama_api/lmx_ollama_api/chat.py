"""``/api/chat``."""

from __future__ import annotations

from falcon.asgi import Request, Response

from lmx_kernel.dialect.refused import check_supported
from lmx_kernel.http.json_body import read_body
from lmx_kernel.interfaces import Kernel
from lmx_ollama_api.names import resolve
from lmx_ollama_api.rendering import chat_shape
from lmx_ollama_api.requests import chat_request
from lmx_ollama_api.respond import Responder
from lmx_ollama_api.schema import ChatBody
from lmx_ollama_api.settings import OllamaSettings


class Chat:
    """Answers conversations."""

    def __init__(self, kernel: Kernel, settings: OllamaSettings) -> None:
        self._kernel = kernel
        self._responder = Responder(kernel, settings, chat_shape)

    async def on_post(self, req: Request, resp: Response) -> None:
        """Answer one conversation, or load its model."""
        body = await read_body(req, ChatBody)
        check_supported(body)
        if not body.messages:
            await self._responder.load(resp, body)
            return
        model = resolve(self._kernel, body.model)
        await self._responder.respond(resp, body, chat_request(body, model))
