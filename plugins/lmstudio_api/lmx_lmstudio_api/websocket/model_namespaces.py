"""``/llm`` and ``/embedding``: models, their loads, and what they are asked."""

from __future__ import annotations

import asyncio
from typing import Any

from attrs import frozen
from msgspec import Struct

from lmx_kernel.interfaces import Kernel
from lmx_kernel.runtime.settings import ModelSettings, QueueSettings
from lmx_lmstudio_api.model_facts import EMBEDDING, statuses
from lmx_lmstudio_api.model_info import LLM, instance_info, load_config
from lmx_lmstudio_api.v1.surface import LOAD, UNLOAD
from lmx_lmstudio_api.websocket.embed import EmbedBody, Embedder
from lmx_lmstudio_api.websocket.loading import GetOrLoadBody, LoadBody, Loader, UnloadBody
from lmx_lmstudio_api.websocket.models import Models, Specifier
from lmx_lmstudio_api.websocket.namespace import ChannelKind, Namespace, Rpc
from lmx_lmstudio_api.websocket.predict import Predictor
from lmx_lmstudio_api.websocket.prediction import CompleteBody, PredictBody
from lmx_lmstudio_api.websocket.tokens import TemplateBody, TextBody, Tokens

AT_ONCE = 16
"""Calls of one socket for tokens or vectors that run at once, at most."""


class InfoBody(Struct, rename="camel", frozen=True):
    """The parameter of ``getModelInfo`` and ``getInstanceProcessingState``."""

    specifier: Specifier
    throw_if_not_found: bool = False


class SpecifierBody(Struct, frozen=True):
    """The parameter of ``getLoadConfig`` and ``getBasePredictionConfig``."""

    specifier: Specifier


@frozen
class Instances:
    """Tells of the loaded models of one kind."""

    kernel: Kernel
    models: Models
    kind: str

    async def list(self, _: None) -> list[dict[str, object]]:
        """Return all."""
        return self.models.instances(self.kind)

    async def info(self, body: InfoBody) -> dict[str, Any] | None:
        """Return one; nothing if it is not loaded.

        :raises NoModelError: it is not, and the client wants an error then.
        """
        loaded = self.models.loaded(body.specifier, self.kind)
        if loaded is None:
            if body.throw_if_not_found:
                raise self.models.not_found(body.specifier)
            return None
        found, status = loaded
        return instance_info(found.card, status, found.name)

    async def load_config(self, body: SpecifierBody) -> dict[str, Any]:
        """Return how one is loaded.

        :raises NoModelError: it is not.
        """
        loaded = self.models.loaded(body.specifier, self.kind)
        if loaded is None:
            raise self.models.not_found(body.specifier)
        return load_config(loaded[0].card, loaded[1])

    async def prediction_config(self, _: SpecifierBody) -> dict[str, Any]:
        """Return nothing: what is not asked for is up to the model's settings."""
        return {"fields": []}

    async def state(self, body: InfoBody) -> dict[str, Any]:
        """Return what one does at the moment.

        :raises NoModelError: it is not loaded.
        """
        loaded = self.models.loaded(body.specifier, self.kind)
        if loaded is None:
            raise self.models.not_found(body.specifier)
        status = statuses(self.kernel)[loaded[0].card.id]
        works = "computingEmbedding" if self.kind == EMBEDDING else "generating"
        return {"status": works if status.running else "idle", "queued": status.waiting}


@frozen
class ModelNamespaces:
    """Makes the namespaces of the two kinds of models, anew for each socket.

    :param heartbeat_s: the longest silence of a channel.
    """

    kernel: Kernel
    models: Models
    heartbeat_s: float

    def llm(self) -> Namespace:
        """Return what clients may ask of models that generate text."""
        predictor = Predictor(self.kernel, self.models, self.heartbeat_s)
        tokens = Tokens(self.kernel, self.models, LLM, self._pace())
        return Namespace(
            "/llm",
            rpcs={
                **self._rpcs(LLM, tokens),
                "applyPromptTemplate": Rpc(TemplateBody, tokens.apply_template),
            },
            channels={
                **self._channels(LLM),
                "predict": ChannelKind(PredictBody, predictor.predict),
                "completeRawText": ChannelKind(CompleteBody, predictor.complete),
            },
        )

    def embedding(self) -> Namespace:
        """Return what clients may ask of models that make embeddings."""
        pace = self._pace()
        tokens = Tokens(self.kernel, self.models, EMBEDDING, pace)
        embedder = Embedder(self.kernel, self.models, pace)
        return Namespace(
            "/embedding",
            rpcs={
                **self._rpcs(EMBEDDING, tokens),
                "embedString": Rpc(EmbedBody, embedder.embed),
            },
            channels=self._channels(EMBEDDING),
        )

    def _rpcs(self, kind: str, tokens: Tokens) -> dict[str, Rpc[Any]]:
        instances = Instances(self.kernel, self.models, kind)
        return {
            "listLoaded": Rpc(None, instances.list),
            "getModelInfo": Rpc(InfoBody, instances.info),
            "getLoadConfig": Rpc(SpecifierBody, instances.load_config),
            "getBasePredictionConfig": Rpc(SpecifierBody, instances.prediction_config),
            "getInstanceProcessingState": Rpc(InfoBody, instances.state),
            "unloadModel": Rpc(UnloadBody, self._loader(kind).unload, lambda: UNLOAD),
            "tokenize": Rpc(TextBody, tokens.tokenize),
            "countTokens": Rpc(TextBody, tokens.count),
        }

    def _channels(self, kind: str) -> dict[str, ChannelKind[Any]]:
        loader = self._loader(kind)
        return {
            "getOrLoad": ChannelKind(GetOrLoadBody, loader.get_or_load, self._path_of_load),
            "loadModel": ChannelKind(LoadBody, loader.load, lambda: LOAD),
        }

    def _loader(self, kind: str) -> Loader:
        return Loader(self.kernel, self.models, kind, self.heartbeat_s)

    def _pace(self) -> asyncio.Semaphore:
        """Return what lets as many calls run at once as a queue takes."""
        max_waiting = self.kernel.settings(QueueSettings).max_waiting
        return asyncio.Semaphore(max(1, min(AT_ONCE, max_waiting)))

    def _path_of_load(self) -> str:
        """Return "" where a request may load its model anyhow."""
        return "" if self.kernel.settings(ModelSettings).jit else LOAD
