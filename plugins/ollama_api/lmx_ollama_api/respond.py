"""How conversations and prompts are answered: whole, or line by line."""

from __future__ import annotations

from attrs import field, frozen
from falcon.asgi import Response

from lmx_kernel.dialect.collected import collect
from lmx_kernel.http.json_body import send
from lmx_kernel.http.sse import stream_answer
from lmx_kernel.interfaces import Kernel
from lmx_kernel.types import GenerationRequest
from lmx_ollama_api.keep_alive import KeepAlive, Loader
from lmx_ollama_api.lines import NDJSON, LineWriter, encode_line
from lmx_ollama_api.names import known_as
from lmx_ollama_api.rendering import Rendering, Shape
from lmx_ollama_api.schema import GenerationBody
from lmx_ollama_api.settings import OllamaSettings


@frozen
class Responder:
    """Answers requests whose bodies are parsed.

    :param shape: of the answers.
    """

    kernel: Kernel
    settings: OllamaSettings
    shape: Shape
    loader: Loader = field(init=False)

    @loader.default
    def _new_loader(self) -> Loader:
        return Loader(self.kernel)

    async def respond(
        self, resp: Response, body: GenerationBody, request: GenerationRequest
    ) -> None:
        """Fill ``resp`` with the answer to a body that asks for one.

        :param request: what the body asks for.
        :raises LmxError: the request is refused, or fails before the response begins.
        """
        keep_alive = KeepAlive.parse(body.keep_alive)
        with known_as(body.model):
            answer = await self.kernel.generate(request)
        self.loader.keep(answer.model, keep_alive)
        rendering = self._rendering(body)
        if body.stream is not False:
            writer, heartbeat_s = LineWriter(rendering=rendering), self.settings.heartbeat_s
            await stream_answer(resp, answer, writer, heartbeat_s=heartbeat_s, content_type=NDJSON)
            return
        with answer:
            collected = await collect(answer)
            whole = rendering.whole(collected[0], answer.usage())
        send(resp, whole)

    async def load(self, resp: Response, body: GenerationBody) -> None:
        """Fill ``resp`` for a body that asks for nothing: its model is loaded, or unloaded.

        :raises LmxError: the model is unknown, or cannot be loaded.
        """
        reason = await self.loader.load(body.model, KeepAlive.parse(body.keep_alive))
        whole = self._rendering(body).without_answer(reason)
        if body.stream is not False:
            resp.content_type, resp.data = NDJSON, encode_line(whole)
        else:
            send(resp, whole)

    def _rendering(self, body: GenerationBody) -> Rendering:
        return Rendering(model=body.model, shape=self.shape, with_logprobs=bool(body.logprobs))
