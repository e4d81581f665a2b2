"""Which models are loaded: one instance a model, and room for those that are asked for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import ExitStack, asynccontextmanager

from lmx_kernel import errors, events
from lmx_kernel.memory.ledger import Ledger
from lmx_kernel.models.backends import Backends
from lmx_kernel.runtime.answer import Answer
from lmx_kernel.runtime.instance import Instance, State, Surroundings
from lmx_kernel.runtime.measure import measure_memory
from lmx_kernel.runtime.settings import ModelSettings, QueueSettings
from lmx_kernel.types import EngineSpec, GenerationRequest, ModelCard

CLOSE_CALL = 0.8  # an estimate above this share of what is free is replaced by an exact figure


class Lifecycle:
    """Owns every instance. A model is loaded by its first request; loads are single-flight, since
    a model has one instance; models that do not fit beside each other take turns.
    """

    def __init__(
        self,
        models: ModelSettings,
        queue: QueueSettings,
        ledger: Ledger,
        backends: Backends,
        publish: Callable[[events.KernelEvent], None],
    ) -> None:
        self.instances: dict[str, Instance] = {}
        self._ledger = ledger
        self._backends = backends
        self._turn = asyncio.Lock()  # fair: those who wait for memory are served in order
        self._surroundings = Surroundings(
            models=models,
            queue=queue,
            reserve=self._reserve,
            env=self._env,
            publish=publish,
        )

    def submit(self, card: ModelCard, request: GenerationRequest) -> Answer:
        """Queue a request for a model.

        :raises ModelUnusableError: its files are known to be unusable.
        :raises LmxError: its queue is full, or it cools down.
        """
        if card.problem:
            raise errors.ModelUnusableError(f"{card.id} cannot be used: {card.problem}")
        instance = self.instances.get(card.id)
        if instance is None or (instance.state is State.ABSENT and instance.spec.card != card):
            instance = self.instances[card.id] = Instance(self._spec(card), self._surroundings)
        return instance.submit(request)

    async def close(self, error: errors.LmxError) -> None:
        """Unload everything; requests in flight get ``error``."""
        await asyncio.gather(*(instance.unload(error) for instance in self.instances.values()))

    def _spec(self, card: ModelCard) -> EngineSpec:
        return EngineSpec(
            card=card,
            options=self._surroundings.models.options_for(card),
            settings=self._backends.settings_of(card.backend),
        )

    def _env(self, spec: EngineSpec) -> Mapping[str, str]:
        return self._backends.get(spec.card.backend).worker_env(spec.settings)

    @asynccontextmanager
    async def _reserve(self, instance: Instance) -> AsyncIterator[int]:
        with ExitStack() as held:
            async with self._turn:
                needed_bytes = await self._needed_bytes(instance.spec)
                await self._hold(held, instance, needed_bytes)
            yield needed_bytes

    async def _hold(self, held: ExitStack, instance: Instance, needed_bytes: int) -> None:
        while True:
            try:
                held.enter_context(self._ledger.reserve(instance.spec.card.id, needed_bytes))
            except errors.InsufficientMemoryError:
                victim = plan_eviction(self.instances.values(), needed_bytes, self._ledger)
                if victim is None:
                    raise
                await victim.yield_memory()
            else:
                return

    async def _needed_bytes(self, spec: EngineSpec) -> int:
        backend = self._backends.get(spec.card.backend)
        await asyncio.to_thread(backend.verify, spec.card)
        estimate = await asyncio.to_thread(backend.estimate, spec.card, spec.options)
        if estimate.total_bytes <= self._ledger.available_bytes * CLOSE_CALL:
            return estimate.total_bytes
        exact = await measure_memory(spec, await asyncio.to_thread(self._env, spec))
        return estimate.total_bytes if exact is None else exact


def plan_eviction(
    instances: Iterable[Instance], needed_bytes: int, ledger: Ledger
) -> Instance | None:
    """Return the loaded model to unload next, or None where unloading cannot make enough room.

    Idle ones go before busy ones, and among them the one that was not used for longest.
    """
    loaded = [instance for instance in instances if instance.state is State.READY]
    freed = sum(instance.memory_bytes for instance in loaded)
    if needed_bytes > ledger.available_bytes + freed:
        return None
    return min(
        loaded,
        key=lambda instance: (not instance.requests.is_idle, instance.requests.last_used),
        default=None,
    )
