"""Loads with wishes of a request: how long the model stays, and how much context it has."""

from __future__ import annotations

import asyncio

from attrs import field, frozen

from lmx_kernel.errors import ModelNotFoundError
from lmx_kernel.interfaces import Kernel, ModelStatus
from lmx_kernel.runtime.settings import ModelSettings
from lmx_kernel.types import LoadOverrides
from lmx_lmstudio_api.model_facts import statuses


@frozen
class EarlyLoads:
    """Begins the load that a request is about to cause, so that its wishes count for it.

    The request then joins this load, and waits for it as for any other.
    """

    kernel: Kernel
    _begun: set[asyncio.Task[ModelStatus]] = field(factory=set, init=False)

    async def begin(
        self, name: str, *, ttl_s: float | None = None, context_length: int | None = None
    ) -> None:
        """Begin the load of a model, unless it is loaded already or requests do not load models.

        :param ttl_s: unload it after so long without a request; None leaves it to the config.
        :param context_length: tokens that one request may use; None leaves it to the config.
        """
        settings = self.kernel.settings(ModelSettings)
        if (ttl_s is None and context_length is None) or not settings.jit:
            return
        try:
            card = self.kernel.find(name)
        except ModelNotFoundError:
            return  # a router may know the name; otherwise the request itself is refused
        status = statuses(self.kernel).get(card.id)
        if card.problem is not None or (status is not None and status.state != "absent"):
            return
        overrides = LoadOverrides(
            context_length=context_length, ttl_s=ttl_s or settings.ttl_s or None
        )
        task = asyncio.create_task(self.kernel.load(card.id, overrides))
        self._begun.add(task)
        task.add_done_callback(self._forget)
        await asyncio.sleep(0)  # in its first step the kernel takes over the wishes

    def _forget(self, task: asyncio.Task[ModelStatus]) -> None:
        self._begun.discard(task)
        if not task.cancelled():
            task.exception()  # the request that joined the load is told
