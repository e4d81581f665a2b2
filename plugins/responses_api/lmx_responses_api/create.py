"""``/v1/responses``: new responses."""

from __future__ import annotations

import time

import msgspec
from attrs import evolve
from falcon.asgi import Request, Response

from lmx_kernel.dialect.owner import owner_of
from lmx_kernel.dialect.recorded import RecordedAnswer
from lmx_kernel.dialect.service_tier import granted_tier
from lmx_kernel.http.json_body import read_body, send
from lmx_kernel.http.sse import stream_answer
from lmx_kernel.interfaces import Answer, Kernel, StoredAnswer
from lmx_kernel.types import GenerationRequest
from lmx_responses_api.ids import response_id
from lmx_responses_api.kept import SURFACE, Kept
from lmx_responses_api.objects import InputTokens
from lmx_responses_api.rendering import Ending
from lmx_responses_api.replay import stream_kept
from lmx_responses_api.requests import Requests
from lmx_responses_api.schema import ResponseBody
from lmx_responses_api.settings import ResponsesSettings
from lmx_responses_api.writer import EventWriter


class Responses:
    """Makes responses."""

    def __init__(self, kernel: Kernel, settings: ResponsesSettings) -> None:
        self._kernel = kernel
        self._settings = settings
        self._requests = Requests(kernel)

    async def on_post(self, req: Request, resp: Response) -> None:
        """Make one: whole, as a stream, or in the background."""
        body = await read_body(req, ResponseBody)
        tier = granted_tier(body.service_tier, self._kernel.caller)
        body = evolve(body, service_tier=tier)  # what it gets is kept
        request = await self._requests.of(body, owner_of(self._kernel))
        if body.background:
            await self._start(resp, body, request)
        else:
            await self._answer(resp, body, request)

    async def _answer(self, resp: Response, body: ResponseBody, request: GenerationRequest) -> None:
        answer: Answer = await self._kernel.generate(request)
        kept = Kept(self._stored(response_id(answer.id), body, answer.model), body)
        rendering = kept.rendering()
        recorded: RecordedAnswer | None = None
        if body.is_kept:
            answer = recorded = RecordedAnswer(answer, self._kernel.stored_answers, kept.answer)

        def ending() -> Ending:
            return Ending.of(recorded.kept) if recorded else Ending(time.time(), "ok")

        if body.stream:
            writer = EventWriter(rendering=rendering, ending=ending)
            await stream_answer(resp, answer, writer, heartbeat_s=self._settings.heartbeat_s)
            return
        with answer:
            async for event in answer:
                rendering.add(event)
            rendering.end(answer.usage(), ending())
        send(resp, rendering.response)

    async def _start(self, resp: Response, body: ResponseBody, request: GenerationRequest) -> None:
        store = self._kernel.stored_answers
        kept = Kept(self._stored(response_id(), body, ""), body)
        await store.start(kept.answer, request)
        if body.stream:
            await stream_kept(resp, store, kept, heartbeat_s=self._settings.heartbeat_s)
        else:
            send(resp, kept.rendering().head.unfinished("queued"))

    def _stored(self, its_id: str, body: ResponseBody, model: str) -> StoredAnswer:
        return StoredAnswer(
            id=its_id,
            owner=owner_of(self._kernel),
            surface=SURFACE,
            body=msgspec.json.encode(body) if body.is_kept else b"",
            model=model,
            created_at=time.time(),
        )


class InputTokenCount:
    """Counts the tokens of a request's prompt."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._requests = Requests(kernel)

    async def on_post(self, req: Request, resp: Response) -> None:
        """Count them; the prompt may be longer than the context."""
        body = await read_body(req, ResponseBody)
        request = await self._requests.whole(evolve(body, background=None), owner_of(self._kernel))
        count = await self._kernel.count_tokens(request)
        found: InputTokens = {"object": "response.input_tokens", "input_tokens": count}
        send(resp, found)
