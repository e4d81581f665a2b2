"""``/api/v1/chat``: chats that the server keeps."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import Any

import msgspec
from attrs import frozen
from falcon.asgi import Request, Response
from lmx_openai_api.early_load import EarlyLoads
from lmx_responses_api.ids import response_id

from lmx_kernel.dialect.owner import owner_of
from lmx_kernel.dialect.recorded import RecordedAnswer
from lmx_kernel.dialect.refused import check_supported
from lmx_kernel.dialect.sampling import make_sampling
from lmx_kernel.http.json_body import read_body, send
from lmx_kernel.http.sse import AnswerStream, close_with_request, send_stream
from lmx_kernel.interfaces import Answer, Kernel, StoredAnswer
from lmx_kernel.types import ChatPrompt, GenerationRequest
from lmx_lmstudio_api.settings import LMStudioSettings
from lmx_lmstudio_api.unknown_model import naming_models
from lmx_lmstudio_api.v1.chat_schema import StatefulChatBody
from lmx_lmstudio_api.v1.history import SURFACE, History
from lmx_lmstudio_api.v1.load_watch import LoadWatch, WatchingAnswer
from lmx_lmstudio_api.v1.rendering import ChatRendering
from lmx_lmstudio_api.v1.writer import ChatWriter


@frozen
class Chat:
    """Answers chats."""

    kernel: Kernel
    settings: LMStudioSettings
    loads: EarlyLoads

    async def on_post(self, req: Request, resp: Response) -> None:
        """Answer one: whole, or as a stream.

        :raises LmxError: it is refused, or fails before the response begins.
        """
        body = await read_body(req, StatefulChatBody)
        check_supported(body)
        request = await self._request(body)
        watch = LoadWatch()
        stack = ExitStack()
        stack.enter_context(self.kernel.listen(watch.note))
        close_with_request(stack.close)
        await self.loads.begin(body.model, ttl_s=body.ttl, context_length=body.context_length)
        with naming_models(self.kernel, body.model):
            answer = await self.kernel.generate(request)
        watch.watch(answer.model)
        its_id = response_id(answer.id) if body.is_kept else None
        watching = self._kept(WatchingAnswer(answer, watch), body, its_id)
        writer = ChatWriter(
            rendering=ChatRendering(answer.model),
            answer=watching,
            watch=watch,
            response_id=its_id,
        )
        if body.stream:
            await self._stream(resp, watching, writer)
        else:
            await self._whole(resp, watching, writer)

    async def _stream(self, resp: Response, answer: Answer, writer: ChatWriter) -> None:
        """Answer with events. A refusal has its own HTTP status, unless the model loads: then the
        stream begins at once, so that the client can tell of the load.
        """
        close_with_request(answer.close)
        first = await answer.next(self.settings.heartbeat_s)
        early = [] if first is None else [first]
        stream = AnswerStream(answer, writer, self.settings.heartbeat_s, early)
        send_stream(resp, stream.frames())

    async def _whole(self, resp: Response, answer: Answer, writer: ChatWriter) -> None:
        with answer:
            while True:
                try:
                    event = await answer.next()
                except StopAsyncIteration:
                    break
                for news in writer.watch.take():
                    writer.rendering.load(news)
                if event is not None:
                    writer.rendering.add(event)
            result = writer.rendering.result(answer.usage(), writer.response_id)
        send(resp, result)

    def _kept(self, answer: Answer, body: StatefulChatBody, its_id: str | None) -> Answer:
        if its_id is None:
            return answer
        kept = StoredAnswer(
            id=its_id,
            owner=owner_of(self.kernel),
            surface=SURFACE,
            body=msgspec.json.encode(body),
            model=answer.model,
            created_at=time.time(),
        )
        return RecordedAnswer(answer, self.kernel.stored_answers, kept)

    async def _request(self, body: StatefulChatBody) -> GenerationRequest:
        history = History(self.kernel.stored_answers, owner_of(self.kernel))
        messages = await history.messages(body)
        sampling = make_sampling(
            {
                "temperature": body.temperature,
                "top_k": body.top_k,
                "top_p": body.top_p,
                "min_p": body.min_p,
                "repetition_penalty": body.repeat_penalty,
            }
        )
        return GenerationRequest(
            model=body.model,
            prompt=ChatPrompt(messages, (), _template_options(body)),
            sampling=sampling,
            max_tokens=body.max_output_tokens,
            reasoning_tokens=0 if body.reasoning == "off" else None,
        )


def _template_options(body: StatefulChatBody) -> dict[str, Any]:
    """Return the names that the chat template gets beside the messages."""
    if body.reasoning is None:
        return {}
    options: dict[str, Any] = {"enable_thinking": body.reasoning != "off"}
    if body.reasoning not in ("off", "on"):
        options["reasoning_effort"] = body.reasoning
    return options
