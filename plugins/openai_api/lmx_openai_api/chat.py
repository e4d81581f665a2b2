"""``/v1/chat/completions``."""

from __future__ import annotations

from falcon.asgi import Request, Response

from lmx_kernel.dialect.service_tier import granted_tier
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
        asked = body.service_tier
        tier = None if asked is None else granted_tier(asked, self._responder.kernel.caller)
        rendering = ChatRendering(bool(body.logprobs), tier)
        await self._responder.respond(resp, body, [chat_request(body)], rendering)
