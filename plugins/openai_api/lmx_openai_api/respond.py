"""How both kinds of completion are answered: whole or as a stream."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen
from falcon.asgi import Response

from lmx_kernel.dialect.collected import collect
from lmx_kernel.http.json_body import send
from lmx_kernel.http.sse import stream_answer
from lmx_kernel.interfaces import Kernel
from lmx_kernel.types import GenerationRequest
from lmx_openai_api.early_load import EarlyLoads
from lmx_openai_api.multi_prompt import generate_all
from lmx_openai_api.rendering import Envelope, Rendering
from lmx_openai_api.schema import GenerationBody
from lmx_openai_api.settings import OpenAISettings
from lmx_openai_api.sse import ChunkWriter


@frozen
class Responder:
    """Answers requests whose bodies are parsed."""

    kernel: Kernel
    settings: OpenAISettings
    loads: EarlyLoads

    async def respond(
        self,
        resp: Response,
        body: GenerationBody,
        requests: Sequence[GenerationRequest],
        rendering: Rendering,
    ) -> None:
        """Fill ``resp`` with the answer to ``requests``, the prompts of one ``body``.

        :raises LmxError: a request is refused, or fails before the response begins.
        """
        await self.loads.begin(body.model, ttl_s=body.ttl)
        answer = await generate_all(self.kernel, requests)
        envelope = Envelope(answer, rendering)
        if body.stream:
            options = body.stream_options
            writer = ChunkWriter(
                envelope=envelope,
                choices=sum(request.candidates for request in requests),
                include_usage=bool(options and options.include_usage),
            )
            heartbeat_s, prompts = self.settings.heartbeat_s, len(requests)
            await stream_answer(resp, answer, writer, heartbeat_s=heartbeat_s, admissions=prompts)
            return
        with answer:
            collected = await collect(answer)
            choices = [rendering.whole(*item) for item in collected.items()]
            whole = envelope.whole(choices, answer.usage())
        send(resp, whole)
