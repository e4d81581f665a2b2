"""``/v1/completions``."""

from __future__ import annotations

from collections.abc import Sequence

from falcon.asgi import Request, Response

from lmx_kernel.http.json_body import read_body
from lmx_kernel.types import GenerationRequest, TextPrompt
from lmx_openai_api.rendering_completion import CompletionRendering
from lmx_openai_api.requests import completion_requests
from lmx_openai_api.respond import Responder
from lmx_openai_api.schema import CompletionBody


class Completions:
    """Continues prompts."""

    def __init__(self, responder: Responder) -> None:
        self._responder = responder

    async def on_post(self, req: Request, resp: Response) -> None:
        """Continue one prompt, or several."""
        body = await read_body(req, CompletionBody)
        requests = completion_requests(body)
        rendering = CompletionRendering(
            with_logprobs=body.logprobs is not None,
            echoes=_echoes(requests) if body.echo else (),
        )
        await self._responder.respond(resp, body, requests, rendering)


def _echoes(requests: Sequence[GenerationRequest]) -> list[str]:
    """Return the prompt of each choice."""
    return [
        request.prompt.text
        for request in requests
        if isinstance(request.prompt, TextPrompt)
        for _ in range(request.candidates)
    ]
