"""The kernel as plugins see it: a narrow façade over everything else."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TypeVar

from attrs import frozen

from lmx_kernel.bus import Bus
from lmx_kernel.config import Settings
from lmx_kernel.engine import EngineStats
from lmx_kernel.errors import UnavailableError
from lmx_kernel.interfaces import Router
from lmx_kernel.memory.ledger import Ledger
from lmx_kernel.models.catalogue import Catalogue
from lmx_kernel.plugins import Observer, PluginStatus
from lmx_kernel.runtime.answer import Answer
from lmx_kernel.runtime.instance import Instance
from lmx_kernel.runtime.lifecycle import Lifecycle
from lmx_kernel.types import GenerationRequest, ModelCard

T = TypeVar("T")


@frozen(kw_only=True)
class ModelStatus:
    """A model that was asked for since the start."""

    id: str
    state: str
    pid: int | None
    running: int
    waiting: int
    memory_bytes: int
    engine: EngineStats | None


@frozen(kw_only=True)
class KernelStatus:
    """The daemon at a glance."""

    uptime_s: float
    draining: bool
    models: tuple[ModelStatus, ...]
    memory_budget_bytes: int
    memory_reserved_bytes: int
    memory_available_bytes: int


class Kernel:
    """What a plugin may do.

    :ivar draining: set when the daemon stops: what runs may finish, nothing new begins.
    """

    def __init__(
        self,
        settings: Settings,
        catalogue: Catalogue,
        lifecycle: Lifecycle,
        ledger: Ledger,
        bus: Bus,
        routers: Sequence[Router],
        plugins: Callable[[], list[PluginStatus]],
    ) -> None:
        self.draining = False
        self._settings = settings
        self._catalogue = catalogue
        self._lifecycle = lifecycle
        self._ledger = ledger
        self._bus = bus
        self._routers = routers
        self._plugins = plugins
        self._began = time.monotonic()

    def settings(self, cls: type[T]) -> T:
        """Return the section of the config that ``cls`` stands for."""
        return self._settings.get(cls)

    def plugins(self) -> list[PluginStatus]:
        """Return every plugin and its state."""
        return self._plugins()

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
        if self.draining:
            raise UnavailableError("the server is stopping", retry_after_s=5)
        card = await self._route(request)
        return self._lifecycle.submit(card, request)

    def listen(self, listener: Observer) -> AbstractContextManager[None]:
        """Call ``listener`` for every event, on the event loop, while the context is open."""
        return self._bus.listen(listener)

    def status(self) -> KernelStatus:
        """Return the state of everything that runs."""
        return KernelStatus(
            uptime_s=time.monotonic() - self._began,
            draining=self.draining,
            models=tuple(map(_model_status, self._lifecycle.instances.values())),
            memory_budget_bytes=self._ledger.budget_bytes,
            memory_reserved_bytes=self._ledger.reserved_bytes,
            memory_available_bytes=self._ledger.available_bytes,
        )

    async def _route(self, request: GenerationRequest) -> ModelCard:
        for router in self._routers:
            if decision := router.route(request, self._catalogue.cards):
                return self._catalogue.find(decision.model)
        return await self._catalogue.find_fresh(request.model)


def _model_status(instance: Instance) -> ModelStatus:
    return ModelStatus(
        id=instance.spec.card.id,
        state=instance.state.value,
        pid=instance.pid,
        running=instance.requests.running,
        waiting=instance.requests.waiting,
        memory_bytes=instance.memory_bytes,
        engine=instance.stats,
    )
