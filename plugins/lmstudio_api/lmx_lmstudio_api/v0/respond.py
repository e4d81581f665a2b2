"""How completions of ``/api/v0`` are answered: as in the OpenAI dialect, with details."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from attrs import define, field, frozen
from falcon.asgi import Request, Response
from lmx_openai_api.embeddings import Embeddings
from lmx_openai_api.multi_prompt import generate_all
from lmx_openai_api.rendering import Envelope, Rendering
from lmx_openai_api.respond import Responder
from lmx_openai_api.schema import EmbeddingBody, GenerationBody
from lmx_openai_api.sse import ChunkWriter

from lmx_kernel.dialect.collected import collect
from lmx_kernel.errors import LmxError
from lmx_kernel.http.json_body import read_body, send
from lmx_kernel.http.sse import stream_answer
from lmx_kernel.interfaces import Answer
from lmx_kernel.types import Event, Finished, GenerationRequest, Usage
from lmx_lmstudio_api.unknown_model import naming_models
from lmx_lmstudio_api.v0.details import DetailsOfAnswer

_END = b"}\n\n"


@frozen
class DetailedResponder(Responder):
    """Answers requests whose bodies are parsed."""

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
        with naming_models(self.kernel, body.model):
            answer = await generate_all(self.kernel, requests)
        card = self.kernel.find(answer.model)
        details = DetailsOfAnswer(self.kernel, card, requests[0].max_tokens)
        envelope = Envelope(answer, rendering)
        if body.stream:
            await self._stream(resp, body, answer, requests, envelope, details)
            return
        with answer:
            collected = await collect(answer)
            choices = [rendering.whole(*item) for item in collected.items()]
            last = list(collected.values())[-1]
            usage = answer.usage()
        send(
            resp, {**envelope.whole(choices, usage), **details.after(usage, last.reason, last.stop)}
        )

    async def _stream(
        self,
        resp: Response,
        body: GenerationBody,
        answer: Answer,
        requests: Sequence[GenerationRequest],
        envelope: Envelope,
        details: DetailsOfAnswer,
    ) -> None:
        options = body.stream_options
        writer = DetailedWriter(
            envelope=envelope,
            choices=sum(request.candidates for request in requests),
            include_usage=bool(options and options.include_usage),
            details=details,
        )
        heartbeat_s, prompts = self.settings.heartbeat_s, len(requests)
        await stream_answer(resp, answer, writer, heartbeat_s=heartbeat_s, admissions=prompts)


@define(kw_only=True)
class DetailedWriter(ChunkWriter):
    """Writes one answer as chunks; the one that ends the last choice has the details, since a chunk
    without choices is only for clients that ask for the usage.
    """

    details: DetailsOfAnswer
    _ended: int = field(init=False, default=0)
    _last: Finished = field(init=False, factory=lambda: Finished(0, "stop"))
    _last_chunk: bytes = field(init=False, default=b"")

    def event(self, event: Event) -> bytes:
        """Return the chunk for an event, if it has one; the last one waits for the figures."""
        chunk = ChunkWriter.event(self, event)
        if isinstance(event, Finished):
            self._ended += 1
            if self._ended == self.choices:
                self._last, self._last_chunk = event, chunk
                return b""
        return chunk

    def failure(self, error: LmxError) -> bytes:
        """Return the frame of an error."""
        return self._last_chunk + ChunkWriter.failure(self, error)

    def closing(self, usage: Usage) -> bytes:
        """Return the chunk with the details, the one with the usage, if it was asked for, and
        ``[DONE]``.
        """
        details = self.details.after(usage, self._last.reason, self._last.stop)
        begin = self._last_chunk.removesuffix(_END)
        chunk = b"%b,%b\n\n" % (begin, msgspec.json.encode(details)[1:]) if begin else b""
        return chunk + ChunkWriter.closing(self, usage)


class EmbeddingsV0(Embeddings):
    """Turns texts into vectors."""

    async def on_post(self, req: Request, resp: Response) -> None:
        """Embed one text, or several."""
        body = await read_body(req, EmbeddingBody)
        with naming_models(self._kernel, body.model):
            found = await self.embed(body)
        send(resp, found)
