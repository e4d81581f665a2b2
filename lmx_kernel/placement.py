"""Which model takes a request: the first of what routing says that can."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TypeVar

from lmx_kernel.config import Settings
from lmx_kernel.errors import InsufficientMemoryError, LmxError, ModelNotFoundError
from lmx_kernel.events import KernelEvent, LoadFailed, ModelLoaded
from lmx_kernel.interfaces import ModelState, Router, RoutingContext
from lmx_kernel.models.catalogue import Catalogue
from lmx_kernel.routing import RoutingSettings, arrange, caller, check, decide
from lmx_kernel.runtime.instance import State
from lmx_kernel.runtime.lifecycle import Lifecycle
from lmx_kernel.runtime.settings import ModelSettings, QueueSettings
from lmx_kernel.statistics import Statistics
from lmx_kernel.types import Decision, GenerationRequest, LoadWish, ModelCard, Route, Skipped

FAILURE_S = 60.0  # a model that could not be loaded is passed over for so long
RECENT = 256
T = TypeVar("T")


class Placement:
    """Finds the model for each request, and remembers the last decisions.

    :param pressure: asks how scarce memory is.
    :ivar routers: those that there are, in any order.
    """

    def __init__(
        self,
        settings: Settings,
        catalogue: Catalogue,
        lifecycle: Lifecycle,
        statistics: Statistics,
        pressure: Callable[[], str],
    ) -> None:
        self.routers: Sequence[Router] = ()
        self._settings = settings
        self._catalogue = catalogue
        self._lifecycle = lifecycle
        self._statistics = statistics
        self._pressure = pressure
        self._failures: dict[str, tuple[float, str]] = {}
        self._recent: deque[Route] = deque(maxlen=RECENT)

    @property
    def recent(self) -> list[Route]:
        """The last decisions, the newest first."""
        return list(reversed(self._recent))

    async def place(
        self, request: GenerationRequest, take: Callable[[ModelCard], T]
    ) -> tuple[T, Route]:
        """Let the first model take the request that can.

        :param take: gives the request to a model, or raises why it cannot be.
        :returns: what ``take`` returned, and how it came to that.
        :raises LmxError: no model can take it.
        """
        router, decision = self._decide(request)
        skipped, model = list(decision.skipped), ""
        try:
            card, taken = await self._first(request, decision, take, skipped)
            model = card.id
        finally:
            route = Route(
                asked=request.model,
                model=model,
                router=router,
                rule=decision.rule,
                reason=decision.reason,
                skipped=tuple(skipped),
                at=time.time(),
            )
            self._recent.append(route)
        return taken, route

    def on_event(self, event: KernelEvent) -> None:
        """Note which models cannot be loaded."""
        if isinstance(event, LoadFailed):
            self._failures[event.model] = (time.monotonic() + FAILURE_S, event.message)
        elif isinstance(event, ModelLoaded):
            self._failures.pop(event.model, None)

    def context(self) -> RoutingContext:
        """Return what routers may look at now."""
        return RoutingContext(
            now=datetime.now(UTC).astimezone(),
            state=_once(self._state),
            caller=caller.get(),
            memory_pressure=self._pressure(),
        )

    # --- inside ---

    def _decide(self, request: GenerationRequest) -> tuple[str, Decision]:
        routers = arrange(self.routers, self._settings.get(RoutingSettings))
        found = routers and decide(routers, request, self._catalogue.cards, self.context())
        return found or ("", Decision((request.model,), "asked for by name", strict=True))

    async def _first(
        self,
        request: GenerationRequest,
        decision: Decision,
        take: Callable[[ModelCard], T],
        skipped: list[Skipped],
    ) -> tuple[ModelCard, T]:
        refusals: list[LmxError] = []
        for name in decision.models[:1] if decision.strict else decision.models:
            try:
                card = await self._find(name, request, decision)
                return card, take(card)
            except LmxError as error:
                refusals.append(error)
                skipped.append(Skipped(name, _reason(error)))
        raise refusals[0] if decision.strict and refusals else _nobody(decision, refusals, skipped)

    async def _find(self, name: str, request: GenerationRequest, decision: Decision) -> ModelCard:
        if decision.strict:
            return await self._catalogue.find_fresh(name)
        card = self._catalogue.find(name)
        state = self._state(card)
        check(card, state, request, self._settings.get(QueueSettings).max_wait_s)
        if not state.is_loaded:
            admission = await self._lifecycle.admission(card, LoadWish())
            if admission.problem:
                raise InsufficientMemoryError(f"does not fit: {admission.problem}")
        return card

    def _state(self, card: ModelCard) -> ModelState:
        model, instance = card.id, self._lifecycle.instances.get(card.id)
        pace = self._statistics.pace(model)
        if instance is None or instance.state in (State.ABSENT, State.COOLING):
            context = self._settings.get(ModelSettings).context_length
            cools = instance is not None and instance.state is State.COOLING
            return ModelState(
                context_length=min(context, card.context_length),
                tokens_per_s=pace.tokens_per_s,
                wait_s=pace.load_s,
                problem="it cools down after crashes" if cools else self._failure(model),
            )
        waiting, parallel = instance.requests.waiting, instance.spec.options.parallel
        is_loaded = instance.state is State.READY
        return ModelState(
            context_length=instance.spec.options.context_length,
            is_loaded=is_loaded,
            running=instance.requests.running,
            waiting=waiting,
            tokens_per_s=pace.tokens_per_s,
            wait_s=waiting / parallel * pace.answer_s + (0.0 if is_loaded else pace.load_s),
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


def _reason(error: LmxError) -> str:
    return "not installed" if isinstance(error, ModelNotFoundError) else error.message


def _nobody(
    decision: Decision, refusals: Sequence[LmxError], skipped: Sequence[Skipped]
) -> LmxError:
    """Return the error for a request that no model takes: of the kind that may pass, if any may."""
    error = next((one for one in refusals if one.retryable), None)
    kind = type(error or (refusals[0] if refusals else ModelNotFoundError("")))
    why = "; ".join(f"{one.model}: {one.reason}" for one in skipped) or "it names none"
    text = f"no model of {decision.rule or 'the router'} takes this request ({why})"
    return kind(text, param="model", retry_after_s=error.retry_after_s if error else None)
