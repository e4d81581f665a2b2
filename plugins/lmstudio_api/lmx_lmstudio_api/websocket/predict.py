"""``predict`` and ``completeRawText``: answers of models, in channels."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from attrs import frozen

from lmx_kernel.interfaces import Answer, Kernel
from lmx_kernel.types import Event, GenerationRequest
from lmx_lmstudio_api.websocket.channel import Channel
from lmx_lmstudio_api.websocket.errors import CancelledError, naming_query
from lmx_lmstudio_api.websocket.info import LLM, instance_info, load_config
from lmx_lmstudio_api.websocket.models import Models
from lmx_lmstudio_api.websocket.prediction import (
    CompleteBody,
    PredictBody,
    complete_request,
    predict_request,
)
from lmx_lmstudio_api.websocket.rendering import PredictionRendering


@frozen
class Predictor:
    """Answers requests.

    :param heartbeat_s: after so long without a message, the last progress is sent again: a client
        gives up after a minute of silence.
    """

    kernel: Kernel
    models: Models
    heartbeat_s: float

    async def predict(self, channel: Channel, body: PredictBody) -> dict[str, Any]:
        """Answer a conversation, or continue its text."""
        name = self.models.target(body.model_specifier, LLM)
        shown = body.model_specifier.name or name
        return await self._answer(channel, predict_request(body, name), shown)

    async def complete(self, channel: Channel, body: CompleteBody) -> dict[str, Any]:
        """Continue a text."""
        name = self.models.target(body.model_specifier, LLM)
        shown = body.model_specifier.name or name
        return await self._answer(channel, complete_request(body, name), shown)

    async def _answer(
        self, channel: Channel, request: GenerationRequest, shown: str
    ) -> dict[str, Any]:
        """Send an answer, and return its last message.

        :param shown: the name of the model in it.
        """
        if channel.is_cancelled:
            raise CancelledError("the client cancelled the request before it began")
        with naming_query(self.kernel, shown):
            answer = await self.kernel.generate(request)
        rendering = PredictionRendering(
            request.max_tokens, hides_reasoning=request.constraint is not None
        )
        with answer:
            channel.on_cancel(answer.close)
            async for event in _events(answer, self.heartbeat_s):
                news = rendering.progress() if event is None else rendering.add(event)
                for message in news:
                    await channel.send(message)
        card = self.kernel.find(answer.model)
        status = self.models.status(card)
        return {
            "type": "success",
            "stats": rendering.stats(answer.usage(), is_cancelled=answer.outcome == "cancelled"),
            "modelInfo": instance_info(card, status, shown),
            "loadModelConfig": load_config(card, status),
            "predictionConfig": {"fields": []},
        }


async def _events(answer: Answer, heartbeat_s: float) -> AsyncIterator[Event | None]:
    """Yield the events of an answer, and None when there was none for so long."""
    while True:
        try:
            yield await answer.next(heartbeat_s)
        except StopAsyncIteration:
            return
