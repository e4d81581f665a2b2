"""The implementation of the Kernel interface: a façade over the parts of the kernel."""

from __future__ import annotations

import time
from array import array
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from attrs import evolve, frozen

from lmx_kernel.config import ConfigError
from lmx_kernel.config.live import change, show
from lmx_kernel.errors import ConflictError, InvalidRequestError, LmxError, UnavailableError
from lmx_kernel.events import Observer, RequestRefused, Stopping
from lmx_kernel.http.context import caller, note_answer, with_caller
from lmx_kernel.http.settings import ServerSettings
from lmx_kernel.http.surface_table import SurfaceTable
from lmx_kernel.interfaces import (
    ApiSurface,
    HookCall,
    HttpRequest,
    Kernel,
    KernelStatus,
    Metric,
    ModelStatus,
    PluginStatus,
)
from lmx_kernel.jobs.jobs import Jobs
from lmx_kernel.kernel.boot import Booted
from lmx_kernel.kernel.extensions import Extensions
from lmx_kernel.kernel.model_settings import ModelSettingsEditor
from lmx_kernel.kernel.status import free_disk_bytes, kernel_status, model_status
from lmx_kernel.memory.guard import Guard
from lmx_kernel.models.catalogue import Catalogue
from lmx_kernel.models.real_files import real_files
from lmx_kernel.observe.bus import Bus
from lmx_kernel.observe.log import LogSettings, set_level
from lmx_kernel.observe.statistics import Statistics
from lmx_kernel.plugins.timeouts import in_thread
from lmx_kernel.prefixes.folder import FOLDER
from lmx_kernel.prefixes.stored import PrefixFolder
from lmx_kernel.routing.placement import Placement
from lmx_kernel.runtime.answer import LiveAnswer
from lmx_kernel.runtime.instance import Instance, State
from lmx_kernel.runtime.lifecycle import Lifecycle
from lmx_kernel.stored.store import AnswerStore
from lmx_kernel.types import (
    Admission,
    DeletedModel,
    Embedded,
    EmbeddingInput,
    EmbeddingPrompt,
    Embeddings,
    EncodedPrompt,
    GenerationRequest,
    LoadOverrides,
    ModelCard,
    Route,
)

T = TypeVar("T")
EMBEDDING = "embedding"


@frozen
class Observation:
    """The parts that publish, count and measure."""

    bus: Bus
    statistics: Statistics
    guard: Guard


@frozen
class ModelParts:
    """The parts that know models, load them, choose between them and have their settings."""

    catalogue: Catalogue
    lifecycle: Lifecycle
    placement: Placement
    settings: ModelSettingsEditor


class KernelFacade(Kernel):
    """Implements :class:`lmx_kernel.interfaces.Kernel` by passing calls on to its parts."""

    def __init__(
        self,
        booted: Booted,
        models: ModelParts,
        extensions: Extensions,
        jobs: Jobs,
        surfaces: SurfaceTable,
        observation: Observation,
    ) -> None:
        self._booted = booted
        self._settings = booted.settings
        self._catalogue = models.catalogue
        self._lifecycle = models.lifecycle
        self._placement = models.placement
        self._model_settings = models.settings
        self._extensions = extensions
        self._jobs = jobs
        self._surfaces = surfaces
        self._bus = observation.bus
        self._statistics = observation.statistics
        self._guard = observation.guard
        self._stored = AnswerStore(booted.settings, self.generate)
        self._draining = False
        self._started_at = time.monotonic()

    def begin_drain(self) -> None:
        """Refuse new requests from now on; what runs may finish."""
        self._draining = True
        self._bus.publish(Stopping())

    @property
    def home(self) -> Path:
        return self._settings.home

    @property
    def draining(self) -> bool:
        return self._draining

    @property
    def surfaces(self) -> Sequence[ApiSurface]:
        return self._surfaces.surfaces

    @property
    def jobs(self) -> Jobs:
        return self._jobs

    @property
    def model_settings(self) -> ModelSettingsEditor:
        return self._model_settings

    @property
    def stored_answers(self) -> AnswerStore:
        return self._stored

    @property
    def stored_prefixes(self) -> PrefixFolder:
        return PrefixFolder(self.home / FOLDER)

    @property
    def caller(self) -> HttpRequest | None:
        return caller()

    def settings(self, cls: type[T]) -> T:
        return self._settings.get(cls)

    def plugins(self) -> list[PluginStatus]:
        return self._booted.plugins.statuses

    def metrics(self) -> list[Metric]:
        return self._booted.plugins.contexts.metrics()

    def models(self) -> list[ModelCard]:
        return self._catalogue.cards

    def find(self, name: str) -> ModelCard:
        return self._catalogue.find(name)

    async def generate(self, request: GenerationRequest) -> LiveAnswer:
        try:
            self._check_running()
            return await self._submit(request)
        except LmxError as error:
            model = self._catalogue.known_id(request.model)
            self._bus.publish(RequestRefused(model=model, code=error.code))
            raise

    async def embed(self, model: str, inputs: Sequence[EmbeddingInput]) -> Embeddings:
        prompt = EmbeddingPrompt(tuple(inputs))
        vectors: tuple[bytes, ...] = ()
        with await self.generate(GenerationRequest(model=model, prompt=prompt)) as answer:
            async for event in answer:
                if isinstance(event, Embedded):
                    vectors = event.vectors
        return Embeddings(
            model=answer.model,
            vectors=tuple(array("f", vector) for vector in vectors),
            prompt_tokens=answer.prompt_tokens or 0,
        )

    async def count_tokens(self, request: GenerationRequest) -> int:
        return (await self._counted(request)).prompt_tokens or 0

    async def encode(self, request: GenerationRequest) -> EncodedPrompt:
        answer = await self._counted(evolve(request, returns_prompt=True))
        assert answer.prompt is not None
        return answer.prompt

    async def explain(self, request: GenerationRequest, caller: HttpRequest | None = None) -> Route:
        return await self._placement.explain(
            request, caller, lambda card: _check_capable(card, request)
        )

    # --- models ---

    async def load(
        self, name: str, overrides: LoadOverrides, backend: str | None = None
    ) -> ModelStatus:
        self._check_running()
        card = await self._catalogue.find_fresh(name, backend)
        instance = await self._lifecycle.load(card, overrides)
        await self._model_settings.keep_load(card.id, overrides)
        return model_status(instance, self._statistics)

    async def unload(self, name: str, reason: str = "asked") -> str:
        is_id = name in self._lifecycle.instances  # its files may be gone by now
        model = name if is_id else self._catalogue.find(name).id
        await self._lifecycle.unload(model, reason)
        return model

    def keep(self, model: str, ttl_s: float | None) -> None:
        self._lifecycle.keep(model, ttl_s)

    async def rescan(self) -> None:
        await self._catalogue.refresh()

    async def delete(self, name: str) -> DeletedModel:
        check = partial(_check_unloaded, self._lifecycle.instances.values())
        return await self._catalogue.delete(name, check)

    async def admission(
        self, name: str, overrides: LoadOverrides, backend: str | None = None
    ) -> Admission:
        card = await self._catalogue.find_fresh(name, backend)
        return await self._lifecycle.admission(card, overrides)

    # --- config ---

    def config(self, *, only_live: bool = False) -> dict[str, dict[str, Any]]:
        return show(self._settings, self._booted.sections, only_live=only_live)

    def configure(self, wanted: Mapping[str, Mapping[str, Any]]) -> None:
        change(self._settings, self._booted.sections, wanted)
        self._put_in_force()

    async def reload_config(self) -> list[str]:
        try:
            waiting = await in_thread(self._booted.reload)
        except ConfigError as error:
            raise InvalidRequestError(error.one_line()) from error
        self._put_in_force()
        return waiting

    # --- plugins ---

    async def rescan_plugins(self) -> list[PluginStatus]:
        return await self._extensions.rescan()

    async def enable_plugin(self, name: str) -> None:
        await self._extensions.enable(name)

    async def reload_plugin(self, name: str) -> None:
        await self._extensions.reload(name)

    def plugin_calls(self, name: str) -> list[HookCall]:
        self._booted.plugins.check_known(name)
        return self._booted.plugins.calls.recent(name)

    async def disable_plugin(self, name: str) -> None:
        await self._extensions.disable(name)

    def model_statuses(self) -> list[ModelStatus]:
        instances = self._lifecycle.instances.values()
        return [model_status(instance, self._statistics) for instance in instances]

    def listen(self, listener: Observer) -> AbstractContextManager[None]:
        return self._bus.listen(listener)

    def decisions(self) -> list[Route]:
        return self._placement.recent

    def status(self) -> KernelStatus:
        return kernel_status(
            self._lifecycle,
            self._statistics,
            uptime_s=time.monotonic() - self._started_at,
            draining=self._draining,
            safe_mode=self._booted.verdict.safe_mode,
            memory_pressure=self._guard.level.value,
            disk_free_bytes=free_disk_bytes(self.home),
            stored_answers=self._stored.count,
            background_answers=self._stored.running,
        )

    # --- inside ---

    def _check_running(self) -> None:
        if self._draining:
            raise UnavailableError("the server is stopping", retry_after_s=5)

    def _put_in_force(self) -> None:
        """Pass on new values of the config to what keeps some."""
        set_level(self._settings.get(LogSettings).level)
        self._model_settings.put_in_force()

    async def _counted(self, request: GenerationRequest) -> LiveAnswer:
        self._check_running()
        with await self._submit(evolve(request, max_tokens=0)) as answer:
            await answer.next()
        return answer

    async def _submit(self, request: GenerationRequest) -> LiveAnswer:
        share_prefixes = self._settings.get(ServerSettings).share_prefixes
        hooks = self._extensions.requests
        request = await hooks.transform(with_caller(request, share_prefixes=share_prefixes))
        request = await self._placement.drafts.resolve(request)

        def take(card: ModelCard, name: str) -> LiveAnswer:
            _check_capable(card, request)
            complete = self._model_settings.complete(request, card, name)
            complete = self._placement.drafts.for_model(complete, card)
            answer = self._lifecycle.submit(card, complete)
            hooks.watch(complete, answer)
            return answer

        answer, route = await self._placement.place(request, take)
        answer.route = route
        note_answer(answer, route)
        return answer


def _check_unloaded(instances: Iterable[Instance], card: ModelCard) -> None:
    """Check that no worker has one of a model's files, by whatever id it was loaded.

    :raises ConflictError: one has.
    """
    files = real_files(card)
    for instance in instances:
        if instance.state in (State.ABSENT, State.COOLING):
            continue
        if instance.model == card.id:
            raise ConflictError(f"{card.id} is loaded; unload it first")
        draft = instance.spec.draft_model
        loaded = [instance.spec.card, *([draft.card] if draft else [])]
        if any(files & real_files(one) for one in loaded):
            raise ConflictError(
                f"{card.id} has files of {instance.model}, which is loaded; unload that first"
            )


def _check_capable(card: ModelCard, request: GenerationRequest) -> None:
    if request.max_tokens == 0:
        return  # every model can count tokens
    wants_embeddings = isinstance(request.prompt, EmbeddingPrompt)
    if wants_embeddings and EMBEDDING not in card.capabilities:
        raise InvalidRequestError(f"{card.id} makes no embeddings", param="model")
    if not wants_embeddings and EMBEDDING in card.capabilities:
        raise InvalidRequestError(
            f"{card.id} makes embeddings only; it does not generate text", param="model"
        )
