"""``getOrLoad``, ``loadModel`` and ``unloadModel``."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Annotated, Any

from attrs import define, evolve, field, frozen
from msgspec import Meta, Struct

from lmx_kernel.dialect.audit import audited_for
from lmx_kernel.dialect.owner import owner_of
from lmx_kernel.events import KernelEvent, LoadProgressed
from lmx_kernel.interfaces import Kernel, ModelStatus
from lmx_kernel.runtime.settings import ModelSettings
from lmx_kernel.types import LoadOverrides, ModelCard
from lmx_lmstudio_api.model_facts import statuses
from lmx_lmstudio_api.model_info import instance_info, model_info
from lmx_lmstudio_api.websocket.channel import Channel
from lmx_lmstudio_api.websocket.config import ConfigStack, load_config_of
from lmx_lmstudio_api.websocket.errors import CancelledError
from lmx_lmstudio_api.websocket.models import Models, Name, Specifier

Milliseconds = Annotated[int, Meta(ge=1, le=10**12)]


class GetOrLoadBody(Struct, rename="camel", frozen=True):
    """What a channel ``getOrLoad`` is created with; ``load_ttl_ms`` counts if it loads."""

    identifier: Name
    load_config_stack: ConfigStack
    load_ttl_ms: Milliseconds | None = None


class LoadBody(Struct, rename="camel", frozen=True):
    """What a channel ``loadModel`` is created with."""

    model_key: Name
    load_config_stack: ConfigStack
    identifier: Name | None = None
    ttl_ms: Milliseconds | None = None


class UnloadBody(Struct, frozen=True):
    """The parameter of ``unloadModel``."""

    identifier: Name


@frozen
class Loader:
    """Loads models of one kind.

    :param heartbeat_s: after so long without progress, the last one is sent again.
    """

    kernel: Kernel
    models: Models
    kind: str
    heartbeat_s: float

    async def get_or_load(self, channel: Channel, body: GetOrLoadBody) -> dict[str, Any]:
        """Return a model that is loaded already as it is; load any other."""
        found = self.models.find(body.identifier, self.kind)
        status = self.models.status(found.card)
        if status is not None:
            return {
                "type": "alreadyLoaded",
                "info": instance_info(found.card, status, found.name),
            }
        started = {"identifier": found.name, "info": model_info(found.card)}
        await channel.send({"type": "startLoading", **started})
        settings = self.kernel.settings(ModelSettings)
        ttl_s = body.load_ttl_ms / 1000 if body.load_ttl_ms else settings.ttl_s or None
        overrides = self._overrides(body.load_config_stack, ttl_s)
        status = await self._load(channel, found.card, overrides, "loadProgress")
        return {"type": "loadSuccess", "info": instance_info(found.card, status, found.name)}

    async def load(self, channel: Channel, body: LoadBody) -> dict[str, Any]:
        """Load a model. One that is loaded stays as it is, as far as nothing else is wanted: there
        are no second instances.

        :raises ConflictError: the identifier is another model's name.
        """
        found = self.models.find(body.model_key, self.kind)
        overrides = self._overrides(
            body.load_config_stack, body.ttl_ms / 1000 if body.ttl_ms else None
        )
        if (status := self.models.status(found.card)) is not None:
            overrides = evolve(
                overrides,
                context_length=overrides.context_length or status.context_length,
                parallel=overrides.parallel or status.parallel,
            )
        if body.identifier is not None:
            self.models.check_free(body.identifier, found.card)
        await channel.send({"type": "resolved", "info": model_info(found.card)})
        with audited_for(owner_of(self.kernel), "load", body.model_key):
            status = await self._load(channel, found.card, overrides, "progress")
        if body.identifier is not None:
            self.models.give(body.identifier, found.card)
        name = body.identifier or found.name
        return {"type": "success", "info": instance_info(found.card, status, name)}

    async def unload(self, body: UnloadBody) -> None:
        """Unload a model, after its running requests.

        :raises NoModelError: it is not loaded.
        """
        with audited_for(owner_of(self.kernel), "unload", body.identifier):
            specifier = Specifier(type="instanceReference", instance_reference=body.identifier)
            loaded = self.models.loaded(specifier, self.kind)
            if loaded is None:
                raise self.models.not_found(specifier)
            await self.kernel.unload(loaded[0].card.id)

    def _overrides(self, stack: ConfigStack, ttl_s: float | None) -> LoadOverrides:
        config = load_config_of(stack, self.kind)
        return LoadOverrides(
            context_length=config.context_length,
            parallel=config.num_parallel_sessions,
            ttl_s=ttl_s,
        )

    async def _load(
        self, channel: Channel, card: ModelCard, overrides: LoadOverrides, kind: str
    ) -> ModelStatus:
        """Load a model, and tell of it.

        :param kind: the type of the messages with the progress.
        :raises CancelledError: the client does not want it any more.
        """
        follower = _Follower(card.id)
        channel.on_cancel(follower.wake)
        load = asyncio.create_task(self.kernel.load(card.id, overrides))
        load.add_done_callback(follower.wake)
        try:
            with self.kernel.listen(follower.note):
                while True:
                    await follower.wait(self.heartbeat_s)
                    if load.done():
                        break
                    if channel.is_cancelled:
                        await self._give_up(card)
                        raise CancelledError(f"the load of {card.id} was cancelled")
                    await channel.send({"type": kind, "progress": follower.share})
            status = await load
        finally:
            load.cancel()  # nobody waits for it any more; the load itself goes on
        await channel.send({"type": kind, "progress": 1.0})
        return status

    async def _give_up(self, card: ModelCard) -> None:
        """Unload a model, unless others wait for it."""
        status = statuses(self.kernel).get(card.id)
        if status is not None and not status.waiting and not status.running:
            await self.kernel.unload(card.id)


@define
class _Follower:
    """Waits for news of a model's load.

    :ivar share: how much of it is done, 0..1.
    """

    model: str
    share: float = 0.0
    _changed: asyncio.Event = field(factory=asyncio.Event, init=False)

    def note(self, event: KernelEvent) -> None:
        """Take an event of the kernel."""
        if isinstance(event, LoadProgressed) and event.model == self.model:
            self.share = event.share
            self._changed.set()

    def wake(self, *_: object) -> None:
        """End the wait."""
        self._changed.set()

    async def wait(self, limit_s: float) -> None:
        """Wait for news, for ``limit_s`` at most."""
        with suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                await self._changed.wait()
        self._changed.clear()
