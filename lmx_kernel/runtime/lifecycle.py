"""Which models are loaded: one instance for each, and room for the one that is needed next."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from lmx_kernel import errors, events
from lmx_kernel.config import Settings
from lmx_kernel.memory.ledger import Ledger
from lmx_kernel.models.backends import Backends
from lmx_kernel.models.saved_settings import SavedSettings
from lmx_kernel.runtime.answer import LiveAnswer
from lmx_kernel.runtime.draft_models import DraftModels
from lmx_kernel.runtime.effective_settings import EffectiveSettings
from lmx_kernel.runtime.instance import Ending, Instance, InstanceServices, State
from lmx_kernel.runtime.needs import Needs
from lmx_kernel.runtime.room import Claim, Refusal, Room, plan_room
from lmx_kernel.runtime.room_line import RoomLine
from lmx_kernel.runtime.settings import ModelSettings
from lmx_kernel.runtime.shares import Shares
from lmx_kernel.runtime.tenure import Kept
from lmx_kernel.types import (
    Admission,
    EngineSpec,
    GenerationRequest,
    LoadOverrides,
    ModelCard,
)

MAINTENANCE_S = 1.0
NOT_LOADED = (State.ABSENT, State.COOLING)


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
        effective: EffectiveSettings,
        find: Callable[[str], ModelCard],
        saved: SavedSettings,
        publish: Callable[[events.KernelEvent], None],
    ) -> None:
        self.instances: dict[str, Instance] = {}
        self.ledger = ledger
        self.shares = Shares()
        self._settings = settings
        self._needs = Needs(backends, ledger)
        self._effective = effective
        self._drafts = DraftModels(find, effective)
        self._saved = saved
        self._overrides: dict[str, LoadOverrides] = dict(saved.saved.loads)
        self._continued: set[asyncio.Future[None]] = set()  # loads whose callers left
        self._closing: errors.LmxError | None = None
        self._line = RoomLine(self._plan_room, lambda: self._models.turn_s)
        self._services = InstanceServices(
            settings=settings,
            spec=self._overridden_spec,
            reserve=self._reserve,
            env=self._needs.env,
            publish=publish,
            shares=self.shares,
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
        self._drafts.ask(card.id, request.draft_model, is_loaded=instance.state not in NOT_LOADED)
        if request.draft_model and not _drafts_for(instance, request.draft_model):
            instance.begin_retire("draft model")  # the request waits for the next load
        return instance.submit(request)

    async def check_draft_model(self, card: ModelCard, draft: ModelCard) -> None:
        """Raise LmxError unless a model can draft for another one and fits beside it."""
        instance = self.instances.get(card.id)
        if instance is not None and instance.memory_bytes and _drafts_for(instance, draft.id):
            return
        if not self._models.jit:
            raise errors.ModelNotLoadedError(f"{draft.id} is not loaded, and models.jit is off")
        spec = self._drafts.with_asked(self._effective.spec(card, self.overrides(card.id)), draft)
        room = self._plan_reload(instance, await self._needs.bytes(spec))
        if isinstance(room, Refusal):
            raise errors.InsufficientMemoryError(room.reason)

    # --- loading and unloading ---

    async def load(self, card: ModelCard, overrides: LoadOverrides) -> Instance:
        """Load a model and return when it is ready. One that is loaded with other options first
        finishes its requests. Overrides that cannot be met change nothing. The load goes on, with
        all that was asked for, if the caller is cancelled.

        :raises ModelUnusableError: its files are unusable.
        :raises LmxError: it does not fit, or cannot be loaded for another reason.
        """
        instance = self._instance(card)
        spec = self._spec(card, overrides)
        if instance.memory_bytes and instance.spec != spec:
            room = self._plan_reload(instance, await self._needs.bytes(spec))
            if isinstance(room, Refusal):
                raise errors.InsufficientMemoryError(room.reason)
        before, self._overrides[card.id] = self._overrides.get(card.id), overrides
        try:
            await self._load_as(card, overrides, before)
        except asyncio.CancelledError:
            continued = asyncio.ensure_future(self._load_as(card, overrides, before))
            self._continued.add(continued)
            continued.add_done_callback(self._forget_continued)
            raise
        return instance

    def refresh(self) -> None:
        """Put settings in force that loaded models take over at once."""
        for instance in self.instances.values():
            self._apply_settings(instance)

    def overrides(self, model: str) -> LoadOverrides | None:
        """Return what the last load by request asked for; None if it was unloaded since."""
        return self._overrides.get(model)

    async def unload(self, model: str, reason: str = "asked") -> None:
        """Unload a model. Its requests may go on for ``models.drain_s``, new ones are refused
        meanwhile. The next request loads it with the options of the config.
        """
        self._overrides.pop(model, None)
        await self._saved.keep_load(model, None)
        why = f"{model} was unloaded on request; a new request loads it again"
        if instance := self.instances.get(model):
            await instance.unload(
                Ending(
                    reason,
                    error=errors.ModelUnloadedError(why),
                    refusal=errors.UnavailableError(f"{model} is being unloaded", retry_after_s=5),
                    drain_s=self._models.drain_s,
                )
            )

    def keep(self, model: str, ttl_s: float | None) -> None:
        """Change for how long a model stays without a request, until it is unloaded."""
        if instance := self.instances.get(model):
            instance.kept = Kept(ttl_s)

    async def admission(self, card: ModelCard, overrides: LoadOverrides) -> Admission:
        """Return whether a model could be loaded now, and what that would take.

        :raises ModelUnusableError: its files are unusable.
        """
        spec = self._spec(card, overrides)
        estimate = await self._needs.estimate(spec)
        room = self._plan_reload(self.instances.get(card.id), estimate.total_bytes)
        evictions = room.evictions if isinstance(room, Room) else ()
        return Admission(
            model=card.id,
            options=spec.options,
            estimate=estimate,
            available_bytes=self.ledger.available_bytes,
            budget_bytes=self.ledger.budget_bytes,
            unloads=tuple(other.model for other in evictions),
            problem=room.reason if isinstance(room, Refusal) else None,
        )

    # --- maintenance ---

    async def run_maintenance(self) -> None:
        """Unload models that expired and restart those that leaked, for ever. Only idle models, so
        that no request waits for this.
        """
        while True:
            await asyncio.sleep(MAINTENANCE_S)
            now = time.monotonic()
            for instance in list(self.instances.values()):
                if instance.expires_in_s(now) == 0:
                    await instance.retire("idle")
                elif instance.has_leaked and instance.requests.is_idle:
                    await self._recycle(instance)

    async def close(self, error: errors.LmxError) -> None:
        """Unload everything; requests in flight get ``error``."""
        self._closing = error
        ending = Ending("stopping", error)
        await asyncio.gather(*(instance.unload(ending) for instance in self.instances.values()))

    # --- inside ---

    async def _load_as(
        self, card: ModelCard, overrides: LoadOverrides, before: LoadOverrides | None
    ) -> None:
        """Load a model, if ``overrides`` are still its own. If that fails it gets those of
        ``before`` again. May be called again after it was cancelled.
        """
        instance, spec, model = self._instance(card), self._spec(card, overrides), card.id
        if self._overrides.get(model) is not overrides:
            return
        try:
            if instance.spec != spec:
                await instance.retire("asked")
            if self._closing is not None:
                raise self._closing
            await self._instance(spec.card).load()
        except Exception:
            if self._overrides.get(model) is overrides:
                self._restore_overrides(model, before)
                self._apply_settings(instance)
            raise
        if self._overrides.get(model) is overrides:  # no other call changed them meanwhile
            self._apply_settings(instance)
            instance.kept = None

    def _forget_continued(self, continued: asyncio.Future[None]) -> None:
        self._continued.discard(continued)
        if not continued.cancelled():
            continued.exception()  # how the load went is published; nobody waits for this

    async def _recycle(self, instance: Instance) -> None:
        await instance.retire("recycled")
        if instance.model in self._overrides:
            instance.begin()  # others need not wait for how that goes

    @property
    def _models(self) -> ModelSettings:
        return self._settings.get(ModelSettings)

    def _instance(self, card: ModelCard) -> Instance:
        if card.problem:
            raise errors.ModelUnusableError(f"{card.id} cannot be used: {card.problem}")
        if (instance := self.instances.get(card.id)) is None:
            spec = self._overridden_spec(card)
            instance = self.instances[card.id] = Instance(spec, self._services)
        if instance.state is State.ABSENT:
            instance.spec = self._overridden_spec(card)
            self._apply_settings(instance)
        return instance

    def _apply_settings(self, instance: Instance) -> None:
        values = self._effective.of(instance.spec.card, load=self._overrides.get(instance.model))
        instance.ttl_s, instance.pinned = values["ttl_s"].value or None, values["pinned"].value

    def _restore_overrides(self, model: str, before: LoadOverrides | None) -> None:
        if before is None:
            del self._overrides[model]
        else:
            self._overrides[model] = before

    def _overridden_spec(self, card: ModelCard) -> EngineSpec:
        return self._spec(card, self._overrides.get(card.id))

    def _spec(self, card: ModelCard, overrides: LoadOverrides | None) -> EngineSpec:
        return self._drafts.add_to(self._effective.spec(card, overrides))

    @asynccontextmanager
    async def _reserve(self, instance: Instance) -> AsyncIterator[int]:
        needed_bytes = await self._needs.bytes(instance.spec)
        await self._line.wait_for_room(instance, needed_bytes)
        try:
            with self.ledger.reserve(instance.model, needed_bytes):
                yield needed_bytes
        finally:
            self._line.look_again()

    def _plan_room(self, instance: Instance | None, claim: Claim) -> Room | Refusal:
        others = [other for other in self.instances.values() if other is not instance]
        return plan_room(others, claim, self.ledger, self._models.max_loaded)

    def _plan_reload(self, instance: Instance | None, needed_bytes: int) -> Room | Refusal:
        """Return how a model gets room, given that it gives back what it holds itself."""
        held_bytes = instance.memory_bytes if instance else 0
        return self._plan_room(instance, Claim(needed_bytes - held_bytes))


def _drafts_for(instance: Instance, draft: str) -> bool:
    """Return whether a model is loaded, or will be, with a draft model."""
    model = instance.spec.draft_model
    return model is not None and model.card.id == draft
