"""``/v1/completions``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from falcon.asgi import Request, Response

from lmx_kernel.http.json_body import read_body
from lmx_kernel.types import GenerationRequest, TextPrompt
from lmx_openai_api.completion_rendering import CompletionRendering
from lmx_openai_api.reply import Replier
from lmx_openai_api.requests import completion_requests
from lmx_openai_api.schema import CompletionBody
from lmx_openai_api.settings import OpenAISettings

if TYPE_CHECKING:
    from lmx_kernel.kernel import Kernel


class Completions:
    """Continues prompts."""

    def __init__(self, kernel: Kernel, settings: OpenAISettings) -> None:
        self._replier = Replier(kernel, settings)

    async def on_post(self, req: Request, resp: Response) -> None:
        """Continue one prompt, or several."""
        body = await read_body(req, CompletionBody)
        requests = completion_requests(body)
        rendering = CompletionRendering(
            with_logprobs=body.logprobs is not None,
            echoes=_echoes(requests) if body.echo else (),
        )
        await self._replier.reply(resp, body, requests, rendering)


def _echoes(requests: Sequence[GenerationRequest]) -> list[str]:
    """Return the prompt of each choice."""
    return [
        request.prompt.text
        for request in requests
        if isinstance(request.prompt, TextPrompt)
        for _ in range(request.candidates)
    ]
