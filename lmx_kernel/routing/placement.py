"""Which model takes a request: the first of what routing says that can."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import cache, partial
from typing import TypeVar

from attrs import evolve

from lmx_kernel.config import Settings
from lmx_kernel.errors import (
    InsufficientMemoryError,
    ModelNotLoadedError,
    ModelUnusableError,
    QueueFullError,
    UnavailableError,
)
from lmx_kernel.events import KernelEvent, LoadFailed, ModelLoaded
from lmx_kernel.interfaces import HttpRequest, ModelState, Router, RoutingContext
from lmx_kernel.memory.sizes import format_bytes
from lmx_kernel.models.catalogue import Catalogue
from lmx_kernel.models.layers import Values
from lmx_kernel.observe.statistics import Statistics
from lmx_kernel.plugins.calls import Watch, unwatched
from lmx_kernel.routing.decide import (
    REFUSE,
    RoutingSettings,
    arrange,
    check,
    decide,
    estimate_tokens,
)
from lmx_kernel.routing.draft_requests import DraftRequests
from lmx_kernel.routing.fallback import Attempt
from lmx_kernel.routing.wait import expected_wait_s
from lmx_kernel.runtime.effective_settings import EffectiveSettings
from lmx_kernel.runtime.instance import State
from lmx_kernel.runtime.lifecycle import Lifecycle
from lmx_kernel.runtime.room import eviction_order
from lmx_kernel.runtime.settings import ModelSettings, QueueSettings
from lmx_kernel.types import (
    Decision,
    GenerationRequest,
    LoadOverrides,
    ModelCard,
    Route,
)

COOLS = "it cools down after crashes"
FAILURE_S = 60.0  # a model that could not be loaded is passed over for so long
RECENT = 256
T = TypeVar("T")


class Placement:
    """Finds the model for each request, and remembers the last decisions.

    :param pressure: asks how scarce memory is.
    :param caller: returns the HTTP request that is being served.
    :param watch: records the calls of routers.
    :ivar drafts: checks the draft models that requests name.
    """

    def __init__(
        self,
        settings: Settings,
        catalogue: Catalogue,
        lifecycle: Lifecycle,
        effective: EffectiveSettings,
        statistics: Statistics,
        pressure: Callable[[], str],
        caller: Callable[[], HttpRequest | None],
        watch: Watch = unwatched,
    ) -> None:
        self.drafts = DraftRequests(catalogue, lifecycle)
        self._watch = watch
        self._routers: Sequence[Router] = ()
        self._settings = settings
        self._catalogue = catalogue
        self._lifecycle = lifecycle
        self._effective = effective
        self._statistics = statistics
        self._pressure = pressure
        self._caller = caller
        self._failures: dict[str, tuple[float, str]] = {}
        self._estimates: dict[str, tuple[ModelCard, Values, int]] = {}
        self._recent: deque[Route] = deque(maxlen=RECENT)

    def use_routers(self, routers: Sequence[Router]) -> None:
        """Ask these from now on, in the order of the config."""
        self._routers = routers

    @property
    def recent(self) -> list[Route]:
        """The last decisions, the newest first."""
        return list(reversed(self._recent))

    async def place(
        self, request: GenerationRequest, take: Callable[[ModelCard, str], T]
    ) -> tuple[T, Route]:
        """Let the first model take the request that can. If none can and one is not there, look at
        the disk again: it may just have come.

        :param take: gives the request to a model, found by a name, or raises why it cannot be.
        :returns: what ``take`` returned, and how it came to that.
        :raises LmxError: no model can take it.
        """
        attempt, taken = await self._try(request, self._caller(), take)
        route = attempt.route()
        self._recent.append(route)
        if taken is None:
            raise attempt.error()
        return taken, route

    async def explain(
        self,
        request: GenerationRequest,
        caller: HttpRequest | None,
        check: Callable[[ModelCard], None],
    ) -> Route:
        """Return where a request would go now, without giving it to a model.

        :param caller: the HTTP request that it would come with.
        :param check: raises LmxError where a model cannot answer such a request.
        """

        def take(card: ModelCard, name: str) -> ModelCard:
            check(card)
            self._check_queue(card)
            return card

        attempt, _ = await self._try(request, caller, take)
        return attempt.route()

    def on_event(self, event: KernelEvent) -> None:
        """Note which models cannot be loaded."""
        if isinstance(event, LoadFailed):
            self._failures[event.model] = (time.monotonic() + FAILURE_S, event.message)
        elif isinstance(event, ModelLoaded):
            self._failures.pop(event.model, None)

    # --- inside ---

    def _context(self, caller: HttpRequest | None) -> RoutingContext:
        return RoutingContext(
            now=datetime.now(UTC).astimezone(),
            state=_once(self._state),
            caller=caller,
            memory_pressure=self._pressure(),
        )

    def _decide(
        self, request: GenerationRequest, caller: HttpRequest | None
    ) -> tuple[str, Decision]:
        routers = arrange(self._routers, self._settings.get(RoutingSettings))
        cards = self._catalogue.cards
        found = routers and decide(routers, request, cards, self._context(caller), self._watch)
        return found or ("", Decision((request.model,), "asked for by name", strict=True))

    async def _try(
        self,
        request: GenerationRequest,
        caller: HttpRequest | None,
        take: Callable[[ModelCard, str], T],
    ) -> tuple[Attempt, T | None]:
        attempt, taken = await self._attempt(request, caller, take)
        if taken is None and self._is_worth_a_look(attempt):
            await self._catalogue.look_again()
            attempt, taken = await self._attempt(request, caller, take)
        return attempt, taken

    async def _attempt(
        self,
        request: GenerationRequest,
        caller: HttpRequest | None,
        take: Callable[[ModelCard, str], T],
    ) -> tuple[Attempt, T | None]:
        router, decision = self._decide(request, caller)
        if not router and (substitute := self._substitute(request.model)):
            router, decision = self._decide(evolve(request, model=substitute), caller)
        attempt = Attempt(request.model, router, decision)
        if decision.strict:
            return attempt, await attempt.choose(0, self._named, self._context_length, take)
        tokens = 0 if request.max_tokens == 0 else estimate_tokens(request.prompt)
        find = partial(self._find, cache(self._room_bytes))
        return attempt, await attempt.choose(tokens, find, self._context_length, take)

    def _substitute(self, name: str) -> str:
        """Return the name that a request gets instead of one that nobody has; "" for none."""
        wanted = self._settings.get(RoutingSettings).unknown_model
        return "" if wanted == REFUSE or self._catalogue.known_id(name) else wanted

    def _is_worth_a_look(self, attempt: Attempt) -> bool:
        """Return whether a model that is not there is missed, and waiting alone does not help."""
        decision = attempt.decision
        if decision.strict or attempt.error().retryable:
            return False
        names = [*decision.models, *(one.model for one in decision.skipped)]
        return not names or not all(map(self._catalogue.known_id, names))

    def _context_length(self, name: str) -> int:
        return self._state(self._catalogue.find(name)).context_length

    async def _named(self, name: str, prompt_tokens: int) -> ModelCard:
        return await self._catalogue.find_fresh(name)

    async def _find(self, room: Callable[[], int], name: str, prompt_tokens: int) -> ModelCard:
        card = self._catalogue.find(name)
        max_wait_s = self._settings.get(QueueSettings).max_wait_s
        check(card, self._state(card), prompt_tokens, max_wait_s)
        if card.id not in self._lifecycle.ledger.held:
            needed = await self._needed_bytes(card)
            if needed > room():
                raise InsufficientMemoryError(
                    f"does not fit: {format_bytes(needed)} are needed, and "
                    f"{format_bytes(room())} can be free"
                )
        return card

    def _check_queue(self, card: ModelCard) -> None:
        """Make sure that the model would queue a request.

        :raises LmxError: it would not, with the reason.
        """
        if card.problem:
            raise ModelUnusableError(card.problem)
        instance = self._lifecycle.instances.get(card.id)
        state = State.ABSENT if instance is None else instance.state
        if state is State.COOLING:
            raise UnavailableError(COOLS)
        if state is State.ABSENT and not self._settings.get(ModelSettings).jit:
            raise ModelNotLoadedError("it is not loaded, and models.jit is off")
        if self._state(card).waiting >= self._settings.get(QueueSettings).max_waiting:
            raise QueueFullError("its queue is full")

    async def _needed_bytes(self, card: ModelCard) -> int:
        """Return what a model needs; it is estimated once for each way to load it."""
        values = self._effective.of(card)  # the same object until something changes
        known, way, needed_bytes = self._estimates.get(card.id, (None, None, 0))
        if known is not card or way is not values:
            admission = await self._lifecycle.admission(card, LoadOverrides())
            needed_bytes = admission.estimate.total_bytes
            self._estimates[card.id] = card, values, needed_bytes
        return needed_bytes

    def _room_bytes(self) -> int:
        """Return what is free, or would be if all were unloaded that may be."""
        unloadable = eviction_order(self._lifecycle.instances.values())
        held_bytes = sum(instance.memory_bytes for instance in unloadable)
        return self._lifecycle.ledger.available_bytes + held_bytes

    def _state(self, card: ModelCard) -> ModelState:
        model, instance = card.id, self._lifecycle.instances.get(card.id)
        throughput = self._statistics.throughput(model)
        if instance is None or instance.state in (State.ABSENT, State.COOLING):
            cools = instance is not None and instance.state is State.COOLING
            return ModelState(
                context_length=self._effective.options(card).context_length,
                tokens_per_s=throughput.tokens_per_s,
                wait_s=throughput.load_s,
                problem=COOLS if cools else self._failure(model),
            )
        return ModelState(
            context_length=instance.spec.options.context_length,
            is_loaded=instance.state is State.READY,
            running=instance.requests.running,
            waiting=instance.requests.waiting,
            tokens_per_s=throughput.tokens_per_s,
            wait_s=expected_wait_s(instance, throughput),
        )

    def _failure(self, model: str) -> str:
        until_s, reason = self._failures.get(model, (0.0, ""))
        return f"its last load failed: {reason}" if until_s > time.monotonic() else ""


def _once(look: Callable[[ModelCard], ModelState]) -> Callable[[ModelCard], ModelState]:
    """Return a function that looks at each model the first time only."""
    seen: dict[str, ModelState] = {}

    def state(card: ModelCard) -> ModelState:
        if card.id not in seen:
            seen[card.id] = look(card)
        return seen[card.id]

    return state
