"""Routers, which choose the model of a request, and what they may know."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Protocol

from attrs import frozen

from lmx_kernel.interfaces.surface import HttpRequest
from lmx_kernel.types import Decision, GenerationRequest, ModelCard


@frozen(kw_only=True)
class ModelState:
    """The current state of a model.

    :ivar is_loaded: whether a request could start without a load.
    :ivar running: requests that run.
    :ivar waiting: requests that are queued.
    :ivar context_length: tokens that one request may use, as it is or would be loaded.
    :ivar tokens_per_s: of one answer, lately; None if there was none yet.
    :ivar wait_s: the expected time until a new request would start.
    :ivar problem: why it takes no request now; "" if no problem is known.
    """

    context_length: int
    is_loaded: bool = False
    running: int = 0
    waiting: int = 0
    tokens_per_s: float | None = None
    wait_s: float = 0.0
    problem: str = ""


@frozen(kw_only=True)
class RoutingContext:
    """What a router may know beside the request. It does not change during a call.

    :ivar now: the local time, with its time zone.
    :ivar state: returns the state of a model; a call takes microseconds, so call it only for models
        whose state matters.
    :ivar caller: the HTTP request that the request belongs to; None for those of LMX itself.
    :ivar memory_pressure: ease, soft or hard.
    """

    now: datetime
    state: Callable[[ModelCard], ModelState]
    caller: HttpRequest | None = None
    memory_pressure: str = "ease"


class Router(Protocol):
    """Chooses a model for a request."""

    name: str

    def route(
        self, request: GenerationRequest, models: Sequence[ModelCard], context: RoutingContext
    ) -> Decision | None:
        """Return a decision, or None to leave it to the next router.

        Pure and fast: it is called on the event loop, for every request. A router that raises is
        skipped for this request, as is one that returns anything else.

        :param models: every model on disk, those that cannot be loaded included.
        """
        ...
