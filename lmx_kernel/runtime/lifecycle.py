"""Which models are loaded: one instance a model, and room for those that are asked for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import ExitStack, asynccontextmanager, suppress

from lmx_kernel import errors, events
from lmx_kernel.config import Settings
from lmx_kernel.memory.ledger import Ledger
from lmx_kernel.memory.sizes import format_bytes
from lmx_kernel.models.backends import Backends
from lmx_kernel.runtime.answer import LiveAnswer
from lmx_kernel.runtime.instance import Instance, InstanceServices, State
from lmx_kernel.runtime.measure import measure_memory
from lmx_kernel.runtime.settings import ModelSettings
from lmx_kernel.types import (
    Admission,
    EngineSpec,
    GenerationRequest,
    LoadOverrides,
    MemoryEstimate,
    ModelCard,
)

CLOSE_CALL = 0.8  # an estimate above this share of what is free is replaced by an exact figure
LOOK_S = 1.0


class Lifecycle:
    """Owns every instance. A model is loaded by its first request or on demand; loads are
    single-flight, since a model has one instance; models that do not fit beside each other take
    turns.
    """

    def __init__(
        self,
        settings: Settings,
        ledger: Ledger,
        backends: Backends,
        publish: Callable[[events.KernelEvent], None],
    ) -> None:
        self.instances: dict[str, Instance] = {}
        self.ledger = ledger
        self._settings = settings
        self._backends = backends
        self._overrides: dict[str, LoadOverrides] = {}
        self._turn = asyncio.Lock()  # fair: those who wait for memory are served in order
        self._surroundings = InstanceServices(
            settings=settings,
            spec=self._overridden_spec,
            reserve=self._reserve,
            env=self._env,
            publish=publish,
        )

    # --- requests ---

    def submit(self, card: ModelCard, request: GenerationRequest) -> LiveAnswer:
        """Queue a request for a model.

        :raises ModelUnusableError: its files are known to be unusable.
        :raises ModelNotLoadedError: it is not loaded, and requests do not load models.
        :raises LmxError: its queue is full, or it cools down.
        """
        instance = self._instance(card)
        if instance.state is State.ABSENT and not self._models.jit:
            raise errors.ModelNotLoadedError(
                f"{card.id} is not loaded, and models.jit is off", param="model"
            )
        return instance.submit(request)

    # --- wishes ---

    async def load(self, card: ModelCard, overrides: LoadOverrides) -> Instance:
        """Load a model and return when it is ready. One that is loaded in another way finishes what
        it was asked so far, and is loaded anew. Overrides that cannot be met change nothing.

        :raises ModelUnusableError: its files are unusable.
        :raises InsufficientMemoryError: it does not fit.
        :raises LmxError: it cannot be loaded for another reason.
        """
        instance = self._instance(card)
        spec = self._spec(card, overrides)
        if instance.memory_bytes and instance.spec != spec:
            await self._check_room(instance, spec)
        before, self._overrides[card.id] = self._overrides.get(card.id), overrides
        try:
            if instance.spec != spec:
                await instance.retire("asked")
            await self._instance(card).load()
        except errors.LmxError:
            if self._overrides.get(card.id) is overrides:
                self._restore_overrides(card.id, before)
            raise
        instance.ttl_s, instance.pinned = overrides.ttl_s, overrides.pinned
        return instance

    async def unload(self, model: str, reason: str = "asked") -> None:
        """Unload a model; what it is doing may go on for ``models.drain_s``, new requests are
        refused meanwhile. The next request loads it as the config says.
        """
        self._overrides.pop(model, None)
        if instance := self.instances.get(model):
            error = errors.UnavailableError(f"{model} is being unloaded", retry_after_s=5)
            await instance.unload(error, reason, self._models.drain_s)

    async def admission(self, card: ModelCard, overrides: LoadOverrides) -> Admission:
        """Return whether a model could be loaded now, and what that would take.

        :raises ModelUnusableError: its files are unusable.
        """
        spec = self._spec(card, overrides)
        estimate = await self._estimate(spec)
        instance = self.instances.get(card.id)
        victims = self._room_for(instance, estimate.total_bytes)
        return Admission(
            model=card.id,
            options=spec.options,
            estimate=estimate,
            available_bytes=self.ledger.available_bytes,
            budget_bytes=self.ledger.budget_bytes,
            unloads=tuple(victim.model for victim in victims or ()),
            problem=self._problem(instance, estimate.total_bytes),
        )

    # --- the house ---

    async def run_maintenance(self) -> None:
        """Unload models whose time is over, and load those anew that leaked, for ever. Only idle
        ones, so nobody waits for this.
        """
        while True:
            await asyncio.sleep(LOOK_S)
            now = time.monotonic()
            for instance in list(self.instances.values()):
                if instance.expires_in_s(now) == 0:
                    await instance.retire("idle")
                elif instance.has_leaked and instance.requests.is_idle:
                    await self._recycle(instance)

    async def close(self, error: errors.LmxError) -> None:
        """Unload everything; requests in flight get ``error``."""
        instances = self.instances.values()
        await asyncio.gather(*(instance.unload(error, "stopping") for instance in instances))

    # --- inside ---

    async def _recycle(self, instance: Instance) -> None:
        await instance.retire("recycled")
        if instance.model in self._overrides:
            with suppress(errors.LmxError):  # format_bytes as an event
                await instance.load()

    @property
    def _models(self) -> ModelSettings:
        return self._settings.get(ModelSettings)

    def _instance(self, card: ModelCard) -> Instance:
        if card.problem:
            raise errors.ModelUnusableError(f"{card.id} cannot be used: {card.problem}")
        instance = self.instances.get(card.id)
        if instance is None:
            instance = Instance(self._overridden_spec(card), self._surroundings)
            self.instances[card.id] = instance
        if instance.state is State.ABSENT:
            instance.spec = self._overridden_spec(card)
            self._apply_overrides(instance)
        return instance

    def _apply_overrides(self, instance: Instance) -> None:
        overrides = self._overrides.get(instance.model)
        if overrides is not None:
            instance.ttl_s, instance.pinned = overrides.ttl_s, overrides.pinned
        else:
            instance.ttl_s = self._models.ttl_s or None

    def _restore_overrides(self, model: str, before: LoadOverrides | None) -> None:
        if before is None:
            del self._overrides[model]
        else:
            self._overrides[model] = before

    def _overridden_spec(self, card: ModelCard) -> EngineSpec:
        return self._spec(card, self._overrides.get(card.id))

    def _spec(self, card: ModelCard, overrides: LoadOverrides | None) -> EngineSpec:
        return EngineSpec(
            card=card,
            options=self._models.options_for(card, overrides),
            settings=self._backends.settings_of(card.backend),
            engine_module=self._backends.engine_module_of(card.backend),
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

    async def _check_room(self, instance: Instance, spec: EngineSpec) -> None:
        """Check whether a model could be loaded as in ``spec`` in place of how it is loaded.

        :raises InsufficientMemoryError: it could not.
        """
        needed_bytes = await self._needed_bytes(spec)
        if self._room_for(instance, needed_bytes) is None:
            raise errors.InsufficientMemoryError(self._shortage(instance, needed_bytes))

    def _problem(self, instance: Instance | None, needed_bytes: int) -> str | None:
        """Return why a model cannot be loaded, or None if it can."""
        if self._room_for(instance, needed_bytes) is None:
            return self._shortage(instance, needed_bytes)
        try:
            self._one_too_many(instance)
        except errors.InsufficientMemoryError as error:
            return error.message
        return None

    def _room_for(self, instance: Instance | None, needed_bytes: int) -> list[Instance] | None:
        """Return who would be unloaded for a model, beside itself; None if that is not enough."""
        held_bytes = instance.memory_bytes if instance else 0
        return plan_evictions(self._others(instance), needed_bytes - held_bytes, self.ledger)

    async def _hold(self, held: ExitStack, instance: Instance, needed_bytes: int) -> None:
        while True:
            victims = plan_evictions(self._others(instance), needed_bytes, self.ledger)
            if victims is None:
                raise errors.InsufficientMemoryError(self._shortage(instance, needed_bytes))
            if not victims:
                break
            await victims[0].yield_memory(self._models.turn_s)
        while victim := self._one_too_many(instance):
            await victim.yield_memory(self._models.turn_s)
        held.enter_context(self.ledger.reserve(instance.model, needed_bytes))

    def _others(self, instance: Instance | None) -> list[Instance]:
        return [other for other in self.instances.values() if other is not instance]

    def _one_too_many(self, instance: Instance | None) -> Instance | None:
        """Return the model to unload since ``models.max_loaded`` are loaded already.

        :raises InsufficientMemoryError: all of them are pinned.
        """
        loaded = [other for other in self._others(instance) if other.memory_bytes]
        if not self._models.max_loaded or len(loaded) < self._models.max_loaded:
            return None
        if not (order := eviction_order(loaded)):
            raise errors.InsufficientMemoryError(
                f"models.max_loaded is {self._models.max_loaded}, and all of them are pinned"
            )
        return order[0]

    def _shortage(self, instance: Instance | None, needed_bytes: int) -> str:
        others = eviction_order(self._others(instance))
        pinned = sorted(i.model for i in self.instances.values() if i.pinned)
        return (
            f"{format_bytes(needed_bytes)} are needed and "
            f"{format_bytes(self.ledger.available_bytes)} are available "
            f"(budget {format_bytes(self.ledger.budget_bytes)}, "
            f"held: {_listed(self.ledger.held)}); "
            f"unloading {', '.join(other.model for other in others) or 'others'} would not make "
            f"enough room" + (f" (pinned: {', '.join(pinned)})" if pinned else "")
        )

    async def _needed_bytes(self, spec: EngineSpec) -> int:
        backend = self._backends.get(spec.card.backend)
        await asyncio.to_thread(backend.verify, spec.card)
        estimate = await self._estimate(spec)
        if estimate.total_bytes <= self.ledger.available_bytes * CLOSE_CALL:
            return estimate.total_bytes
        exact = await measure_memory(spec, await asyncio.to_thread(self._env, spec))
        return estimate.total_bytes if exact is None else exact

    async def _estimate(self, spec: EngineSpec) -> MemoryEstimate:
        backend = self._backends.get(spec.card.backend)
        return await asyncio.to_thread(backend.estimate, spec.card, spec.options, spec.settings)


def eviction_order(instances: Iterable[Instance]) -> list[Instance]:
    """Return the models that may be unloaded for another, first the one to go first.

    Idle ones go before busy ones, those before the ones that are still loading, and among them the
    one that was not used for longest.
    """
    return sorted(
        (instance for instance in instances if instance.memory_bytes and not instance.pinned),
        key=lambda instance: (
            instance.state is State.LOADING,
            not instance.requests.is_idle,
            instance.requests.last_used,
        ),
    )


def plan_evictions(
    instances: Iterable[Instance], needed_bytes: int, ledger: Ledger
) -> list[Instance] | None:
    """Return the models to unload so that ``needed_bytes`` fit, in order; None if even all of them
    would not make enough room.
    """
    room, victims = ledger.available_bytes, []
    for instance in eviction_order(instances):
        if room >= needed_bytes:
            break
        victims.append(instance)
        room += instance.memory_bytes
    return victims if room >= needed_bytes else None


def _listed(held: Mapping[str, int]) -> str:
    return (
        ", ".join(f"{name} {format_bytes(size)}" for name, size in sorted(held.items()))
        or "nothing"
    )
