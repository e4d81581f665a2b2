"""Who chooses the model for a request, and what it may look at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Protocol

from attrs import frozen

from lmx_kernel.interfaces.surface import HttpRequest
from lmx_kernel.types import Decision, GenerationRequest, ModelCard


@frozen(kw_only=True)
class ModelState:
    """What a model does at the moment.

    :ivar is_loaded: it could begin at once.
    :ivar running: requests that it works on.
    :ivar waiting: requests that wait for it.
    :ivar context_length: tokens that one request may use, as it is or would be loaded.
    :ivar tokens_per_s: of one answer, lately; None if it has not answered yet.
    :ivar wait_s: how long a new request would wait to begin, as far as anybody can know.
    :ivar problem: why it takes no request now; "" if nothing is known to be wrong.
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
    """What a router may look at beside the request. Nothing of it changes while it is asked.

    :ivar now: with the machine's own time zone.
    :ivar state: returns what a model does; asking costs microseconds, so ask for those that matter.
    :ivar caller: the HTTP request that this came with; None if it came from within.
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

        Pure and fast: it is called on the event loop, for every request. One that raises is passed
        over for this request.

        :param models: every model on disk, those that cannot be loaded included.
        """
        ...
