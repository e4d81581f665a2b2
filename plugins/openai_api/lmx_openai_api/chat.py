"""``/v1/chat/completions``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from falcon.asgi import Request, Response

from lmx_kernel.http.json_body import read_body
from lmx_openai_api.chat_rendering import ChatRendering
from lmx_openai_api.reply import Replier
from lmx_openai_api.requests import chat_request
from lmx_openai_api.schema import ChatBody
from lmx_openai_api.settings import OpenAISettings

if TYPE_CHECKING:
    from lmx_kernel.kernel import Kernel


class ChatCompletions:
    """Answers conversations."""

    def __init__(self, kernel: Kernel, settings: OpenAISettings) -> None:
        self._replier = Replier(kernel, settings)

    async def on_post(self, req: Request, resp: Response) -> None:
        """Answer one conversation."""
        body = await read_body(req, ChatBody)
        rendering = ChatRendering(bool(body.logprobs))
        await self._replier.reply(resp, body, [chat_request(body)], rendering)
