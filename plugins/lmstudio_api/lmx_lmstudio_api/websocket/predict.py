"""``predict`` and ``completeRawText``: answers of models, in channels."""

from __future__ import annotations

import asyncio
from typing import Any

from attrs import frozen

from lmx_kernel.interfaces import Answer, Kernel
from lmx_kernel.types import GenerationRequest
from lmx_lmstudio_api.model_info import LLM, instance_info, load_config
from lmx_lmstudio_api.websocket.channel import Channel
from lmx_lmstudio_api.websocket.errors import naming_query
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
        with naming_query(self.kernel, shown):
            answer = await self.kernel.generate(request)
        rendering = PredictionRendering(
            request.max_tokens, hides_reasoning=request.constraint is not None
        )
        with answer:
            card = self.kernel.find(answer.model)
            channel.on_cancel(answer.close)
            await self._send(channel, answer, rendering)
        status = self.models.status(card)
        return {
            "type": "success",
            "stats": rendering.stats(answer.usage(), is_cancelled=answer.outcome == "cancelled"),
            "modelInfo": instance_info(card, status, shown),
            "loadModelConfig": load_config(card, status),
            "predictionConfig": {"fields": []},
        }

    async def _send(self, channel: Channel, answer: Answer, rendering: PredictionRendering) -> None:
        """Send the events of an answer. Those without a message do not put off the heartbeat."""
        loop = asyncio.get_running_loop()
        sent_at = loop.time()
        while True:
            left_s = sent_at + self.heartbeat_s - loop.time()
            try:
                event = await answer.next(left_s) if left_s > 0 else None
            except StopAsyncIteration:
                return
            messages = rendering.progress() if event is None else rendering.add(event)
            for message in messages:
                await channel.send(message)
            if messages:
                sent_at = loop.time()
