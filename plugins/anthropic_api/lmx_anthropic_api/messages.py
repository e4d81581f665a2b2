"""``/v1/messages``."""

from __future__ import annotations

from falcon.asgi import Request, Response

from lmx_anthropic_api.objects import TokenCount
from lmx_anthropic_api.rendering import message_id, whole_message
from lmx_anthropic_api.requests import count_request, message_request, read
from lmx_anthropic_api.schema import CountBody, MessagesBody
from lmx_anthropic_api.service_tier import granted_tier
from lmx_anthropic_api.settings import AnthropicSettings
from lmx_anthropic_api.stream import MessageWriter
from lmx_kernel.http.json_body import send
from lmx_kernel.http.sse import stream_answer
from lmx_kernel.interfaces import Kernel


class Messages:
    """Answers conversations."""

    def __init__(self, kernel: Kernel, settings: AnthropicSettings) -> None:
        self._kernel = kernel
        self._settings = settings

    async def on_post(self, req: Request, resp: Response) -> None:
        """Answer one conversation, whole or as a stream.

        :raises LmxError: the request is refused, or fails before the response begins.
        """
        body = await read(req, MessagesBody)
        request = message_request(body)
        tier = granted_tier(body.service_tier, self._kernel.caller)
        answer = await self._kernel.generate(request)
        if body.stream:
            writer = MessageWriter(
                id=message_id(answer),
                model=answer.model,
                max_tokens=request.max_tokens,
                service_tier=tier,
            )
            await stream_answer(resp, answer, writer, heartbeat_s=self._settings.heartbeat_s)
            return
        with answer:
            message = await whole_message(answer, request.max_tokens, tier)
        send(resp, message)


class CountTokens:
    """Counts the tokens of a conversation, beside whatever the model is answering."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    async def on_post(self, req: Request, resp: Response) -> None:
        """Count them.

        :raises LmxError: the request is refused.
        """
        body = await read(req, CountBody)
        send(resp, TokenCount(await self._kernel.count_tokens(count_request(body))))
