"""The kernel as plugins see it: a narrow façade over everything else."""

from __future__ import annotations

import asyncio
import time
from array import array
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypeVar

from attrs import evolve

from lmx_kernel.boot import Booted
from lmx_kernel.bus import Bus
from lmx_kernel.config import ConfigError
from lmx_kernel.config.live import change, show
from lmx_kernel.discovery import PluginStatus
from lmx_kernel.errors import ConflictError, InvalidRequestError, LmxError, UnavailableError
from lmx_kernel.events import RequestRefused
from lmx_kernel.interfaces import ApiSurface
from lmx_kernel.jobs.jobs import Jobs
from lmx_kernel.log import LogSettings, note_answer, set_level
from lmx_kernel.memory.guard import Guard
from lmx_kernel.models.catalogue import Catalogue
from lmx_kernel.placement import Placement
from lmx_kernel.plugins import Observer
from lmx_kernel.runtime.answer import Answer
from lmx_kernel.runtime.instance import State
from lmx_kernel.runtime.lifecycle import Lifecycle
from lmx_kernel.statistics import Statistics
from lmx_kernel.status import (
    KernelStatus,
    ModelStatus,
    free_disk_bytes,
    kernel_status,
    model_status,
)
from lmx_kernel.types import (
    Admission,
    Embedded,
    EmbeddingInput,
    EmbeddingPrompt,
    Embeddings,
    GenerationRequest,
    LoadWish,
    ModelCard,
    Route,
)

T = TypeVar("T")
EMBEDDING = "embedding"


class Kernel:
    """What a plugin may do.

    :ivar draining: set when the daemon stops: what runs may finish, nothing new begins.
    :ivar surfaces: the HTTP dialects that are served.
    :ivar jobs: long work.
    :ivar rewire: connects what plugins offer, after some came or went.
    """

    surfaces: Sequence[ApiSurface] = ()

    def __init__(
        self,
        booted: Booted,
        catalogue: Catalogue,
        lifecycle: Lifecycle,
        guard: Guard,
        bus: Bus,
        jobs: Jobs,
    ) -> None:
        self.draining = False
        self.jobs = jobs
        self.rewire: Callable[[], Awaitable[None]] = _nothing_to_rewire
        self._booted = booted
        self._settings = booted.settings
        self._catalogue = catalogue
        self._lifecycle = lifecycle
        self._guard = guard
        self._bus = bus
        self._statistics = Statistics()
        bus.add_listener(self._statistics.on_event)
        self._placement = Placement(
            self._settings, catalogue, lifecycle, self._statistics, lambda: guard.level.value
        )
        bus.add_listener(self._placement.on_event)
        self.use_routers()
        self._began = time.monotonic()

    def use_routers(self) -> None:
        """Ask the routers there are now."""
        self._placement.routers = self._booted.plugins.routers(self._settings)

    @property
    def home(self) -> Path:
        """LMX's own folder."""
        return self._settings.home

    def settings(self, cls: type[T]) -> T:
        """Return the section of the config that ``cls`` stands for."""
        return self._settings.get(cls)

    def plugins(self) -> list[PluginStatus]:
        """Return every plugin and its state."""
        return self._booted.plugins.statuses

    def models(self) -> list[ModelCard]:
        """Return every model on disk, those that cannot be loaded included."""
        return self._catalogue.cards

    def find(self, name: str) -> ModelCard:
        """Return a model by its name.

        :raises ModelNotFoundError: names the models there are.
        """
        return self._catalogue.find(name)

    async def generate(self, request: GenerationRequest) -> Answer:
        """Begin to answer a request. The answer's first event is ``Admitted``; a check that the
        request fails later is raised from :meth:`Answer.next` in its place.

        :raises LmxError: unknown or unusable model, full queue, crashed model, stopping server.
        """
        try:
            self._check_running()
            return await self._submit(request)
        except LmxError as error:
            model = self._catalogue.known_id(request.model)
            self._bus.publish(RequestRefused(model=model, code=error.code))
            raise

    async def embed(self, model: str, inputs: Sequence[EmbeddingInput]) -> Embeddings:
        """Return a vector for each text; the model is loaded if need be. Cancelling gives it up.

        :raises InvalidRequestError: the model makes no embeddings, or a text does not fit it.
        :raises LmxError: as :meth:`generate`.
        """
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
        """Return how many tokens the prompt of ``request`` has, which may be more than the context
        holds; the model is loaded if need be. Cancelling gives it up.

        :raises LmxError: as :meth:`generate`.
        """
        self._check_running()
        with await self._submit(evolve(request, max_tokens=0)) as answer:
            await answer.next()
        return answer.prompt_tokens or 0

    # --- models ---

    async def load(self, name: str, wish: LoadWish, backend: str | None = None) -> ModelStatus:
        """Load a model as wished, and return when it is ready; harmless if it is already.

        :param backend: where several recognise the same files; None takes the first.
        :raises LmxError: unknown or unusable model, no room, crashed model, stopping server.
        """
        self._check_running()
        card = await self._catalogue.find_fresh(name, backend)
        instance = await self._lifecycle.load(card, wish)
        return model_status(instance, self._statistics)

    async def unload(self, name: str) -> str:
        """Unload a model and return its id; what it is doing may be finished. Harmless if it is not
        loaded.

        :raises ModelNotFoundError: names the models there are.
        """
        is_id = name in self._lifecycle.instances  # also where its files are gone by now
        model = name if is_id else self._catalogue.find(name).id
        await self._lifecycle.unload(model)
        return model

    async def delete(self, name: str) -> ModelCard:
        """Delete a model from disk.

        :raises ModelNotFoundError: names the models there are.
        :raises ConflictError: it is loaded.
        :raises ForbiddenError: it lies in a place that belongs to another program.
        """
        return await self._catalogue.delete(name, self._check_unloaded)

    async def admission(self, name: str, wish: LoadWish, backend: str | None = None) -> Admission:
        """Return whether a model could be loaded as wished, and what that would take.

        :raises LmxError: unknown or unusable model.
        """
        card = await self._catalogue.find_fresh(name, backend)
        return await self._lifecycle.admission(card, wish)

    # --- config ---

    def config(self, *, only_live: bool = False) -> dict[str, dict[str, Any]]:
        """Return the values in force, by section and key; secrets are masked.

        :param only_live: leave out what cannot be changed while the daemon runs.
        """
        return show(self._settings, self._booted.sections, only_live=only_live)

    def configure(self, wanted: Mapping[str, Mapping[str, Any]]) -> None:
        """Change values until the next start, all or none.

        :raises InvalidRequestError: with everything that is wrong with them.
        """
        change(self._settings, self._booted.sections, wanted)
        set_level(self._settings.get(LogSettings).level)

    async def reload_config(self) -> list[str]:
        """Read the config again, and put in force what may change while the daemon runs.

        :returns: the keys whose new values need a restart.
        :raises InvalidRequestError: with every problem in it; nothing changed.
        """
        try:
            waiting = await asyncio.to_thread(self._booted.reload)
        except ConfigError as error:
            raise InvalidRequestError(error.told()) from error
        set_level(self._settings.get(LogSettings).level)
        return waiting

    # --- plugins ---

    async def rescan_plugins(self) -> list[PluginStatus]:
        """Use plugins that were installed since, and try again those that failed.

        :returns: those that are active now and were not before.
        :raises ConflictError: one of them cannot be connected; all are disabled again.
        """
        added = await asyncio.to_thread(self._booted.plugins.rescan)
        await self._connect(added)
        return [status for status in self.plugins() if status.name in added]

    async def enable_plugin(self, name: str) -> None:
        """Use a plugin that is disabled.

        :raises NotFoundError: it is not installed.
        :raises ConflictError: it cannot be loaded or connected.
        """
        await asyncio.to_thread(self._booted.plugins.enable, name)
        await self._connect([name])

    async def disable_plugin(self, name: str) -> None:
        """Stop using a plugin until the next start.

        :raises NotFoundError: it is not installed.
        :raises ConflictError: it cannot be done safely: it is required, or runs a loaded model.
        """
        for instance in self._lifecycle.instances.values():
            backend = instance.spec.card.backend
            if instance.pid and self._booted.plugins.owner_of("lmx_backends", backend) == name:
                raise ConflictError(f"{name} runs {instance.model}; unload it first")
        self._booted.plugins.disable(name)
        await self.rewire()
        await self._catalogue.refresh()

    async def _connect(self, added: Sequence[str]) -> None:
        try:
            await asyncio.to_thread(self._booted.reload)
            await self.rewire()
        except (ConfigError, ConflictError) as error:
            for name in added:
                self._booted.plugins.disable(name, str(error))
            await self.rewire()
            raise ConflictError(f"{', '.join(added)} cannot be used: {error}") from error
        await self._catalogue.refresh()

    # --- models on disk ---

    async def rescan(self) -> None:
        """Look at the disk again, now."""
        await self._catalogue.refresh()

    # --- looking ---

    def listen(self, listener: Observer) -> AbstractContextManager[None]:
        """Call ``listener`` for every event, on the event loop, while the context is open."""
        return self._bus.listen(listener)

    def decisions(self) -> list[Route]:
        """Return where the last requests went and why, the newest first."""
        return self._placement.recent

    def status(self) -> KernelStatus:
        """Return the state of everything that runs."""
        return kernel_status(
            self._lifecycle,
            self._statistics,
            uptime_s=time.monotonic() - self._began,
            draining=self.draining,
            safe_mode=self._booted.verdict.safe_mode,
            memory_pressure=self._guard.level.value,
            disk_free_bytes=free_disk_bytes(self.home),
        )

    # --- inside ---

    def _check_running(self) -> None:
        if self.draining:
            raise UnavailableError("the server is stopping", retry_after_s=5)

    def _check_unloaded(self, card: ModelCard) -> None:
        instance = self._lifecycle.instances.get(card.id)
        if instance is not None and instance.state not in (State.ABSENT, State.COOLING):
            raise ConflictError(f"{card.id} is loaded; unload it first")

    async def _submit(self, request: GenerationRequest) -> Answer:
        def take(card: ModelCard) -> Answer:
            _check_capable(card, request)
            return self._lifecycle.submit(card, request)

        answer, route = await self._placement.place(request, take)
        answer.route = route
        return note_answer(answer)


def _check_capable(card: ModelCard, request: GenerationRequest) -> None:
    if request.max_tokens == 0:
        return  # any model can count
    wants_embeddings = isinstance(request.prompt, EmbeddingPrompt)
    if wants_embeddings and EMBEDDING not in card.capabilities:
        raise InvalidRequestError(f"{card.id} makes no embeddings", param="model")
    if not wants_embeddings and EMBEDDING in card.capabilities:
        raise InvalidRequestError(
            f"{card.id} makes embeddings only; it does not answer", param="model"
        )


async def _nothing_to_rewire() -> None:
    """There is no daemon around this kernel."""
