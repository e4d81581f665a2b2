"""``/v1/chat/completions``."""

from __future__ import annotations

from falcon.asgi import Request, Response

from lmx_kernel.http.json_body import read_body
from lmx_openai_api.rendering_chat import ChatRendering
from lmx_openai_api.requests import chat_request
from lmx_openai_api.respond import Responder
from lmx_openai_api.schema import ChatBody


class ChatCompletions:
    """Answers conversations."""

    def __init__(self, responder: Responder) -> None:
        self._responder = responder

    async def on_post(self, req: Request, resp: Response) -> None:
        """Answer one conversation."""
        body = await read_body(req, ChatBody)
        rendering = ChatRendering(bool(body.logprobs))
        await self._responder.respond(resp, body, [chat_request(body)], rendering)
