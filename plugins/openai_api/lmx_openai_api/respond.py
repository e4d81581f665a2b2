"""How both kinds of completion are answered: whole or as a stream."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from attrs import frozen
from falcon.asgi import Response

from lmx_kernel.http.json_body import send
from lmx_kernel.interfaces import Answer, Kernel
from lmx_kernel.types import GenerationRequest
from lmx_openai_api.collected import listen
from lmx_openai_api.multi_prompt import ask
from lmx_openai_api.rendering import Envelope, Rendering
from lmx_openai_api.schema import GenerationBody
from lmx_openai_api.settings import OpenAISettings
from lmx_openai_api.sse import EventStream, read_admission


@frozen
class Responder:
    """Answers requests of which the body is understood."""

    kernel: Kernel
    settings: OpenAISettings

    async def reply(
        self,
        resp: Response,
        body: GenerationBody,
        requests: Sequence[GenerationRequest],
        rendering: Rendering,
    ) -> None:
        """Fill ``resp`` with the answer to ``requests``, the prompts of one ``body``.

        :raises LmxError: a request is refused, or fails before the reply begins.
        """
        answer = await ask(self.kernel, requests)
        envelope = Envelope.of(answer, rendering)
        if body.stream:
            await self._stream(resp, body, requests, answer, envelope)
        else:
            with answer:
                heard = await listen(answer)
                choices = [rendering.whole(*item) for item in heard.items()]
                whole = envelope.whole(choices, answer.usage())
            send(resp, whole)

    async def _stream(
        self,
        resp: Response,
        body: GenerationBody,
        requests: Sequence[GenerationRequest],
        answer: Answer,
        envelope: Envelope,
    ) -> None:
        _close_with_task(answer)
        early = await read_admission(answer, len(requests), self.settings.heartbeat_s)
        stream = EventStream(
            answer=answer,
            early=early,
            envelope=envelope,
            choices=sum(request.candidates for request in requests),
            heartbeat_s=self.settings.heartbeat_s,
            include_usage=bool(body.stream_options and body.stream_options.include_usage),
        )
        resp.content_type = "text/event-stream"
        resp.set_headers({"cache-control": "no-cache", "x-accel-buffering": "no"})
        resp.stream = stream.frames()


def _close_with_task(answer: Answer) -> None:
    """Close ``answer`` when the running task ends, in whatever way.

    The stream could not do it: falcon never starts it when the headers cannot be sent.
    """
    task = asyncio.current_task()
    assert task is not None
    task.add_done_callback(lambda _: answer.close())
