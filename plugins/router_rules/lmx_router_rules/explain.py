"""Where a request would go now, and why: what `lmx route` tells."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any

from attrs import frozen

from lmx_kernel.assembly import scan
from lmx_kernel.boot import Booted
from lmx_kernel.errors import InsufficientMemoryError, LmxError
from lmx_kernel.interfaces import HttpRequest, ModelState, RoutingContext
from lmx_kernel.memory.budget import MemorySettings
from lmx_kernel.memory.ledger import GIB
from lmx_kernel.models.backends import Backends
from lmx_kernel.models.catalogue import Catalogue
from lmx_kernel.routing import RoutingSettings, arrange, check, decide, estimate_tokens
from lmx_kernel.runtime.settings import ModelSettings, QueueSettings
from lmx_kernel.types import Decision, GenerationRequest, ModelCard, Skipped
from lmx_router_rules.settings import RulesSettings
from lmx_router_rules.task import Task, classify

Status = Mapping[str, Any]


@frozen(kw_only=True)
class Explanation:
    """Where a request would go.

    :ivar model: the model that would get it; "" if none would.
    :ivar chain: the models that would be tried, best first.
    :ivar is_live: whether a daemon said what its models do.
    """

    asked: str
    task: Task
    prompt_tokens: int
    router: str
    rule: str
    reason: str
    strict: bool
    chain: tuple[str, ...]
    model: str
    skipped: tuple[Skipped, ...]
    is_live: bool


def explain(
    booted: Booted, request: GenerationRequest, caller: HttpRequest, status: Status | None
) -> Explanation:
    """Return where ``request`` would go.

    :param status: what a running daemon says of itself; None if there is none.
    """
    catalogue = scan(booted)
    state = partial(_state, booted, status)
    context = RoutingContext(
        now=datetime.now(UTC).astimezone(),
        state=state,
        caller=caller,
        memory_pressure=status["memory_pressure"] if status else "ease",
    )
    settings, plugins = booted.settings, booted.plugins
    routers = arrange(plugins.routers(settings), settings.get(RoutingSettings))
    found = decide(routers, request, catalogue.cards, context)
    router, decision = found or ("", Decision((request.model,), "asked for by name", strict=True))
    model, skipped = _first(booted, catalogue, request, decision, state)
    return Explanation(
        asked=request.model,
        task=classify(request, settings.get(RulesSettings).long_tokens),
        prompt_tokens=estimate_tokens(request.prompt),
        router=router,
        rule=decision.rule,
        reason=decision.reason,
        strict=decision.strict,
        chain=decision.models,
        model=model,
        skipped=(*decision.skipped, *skipped),
        is_live=status is not None,
    )


def _state(booted: Booted, status: Status | None, card: ModelCard) -> ModelState:
    """Return what a model does, as a daemon told it."""
    models = status["models"] if status else ()
    told = next((model for model in models if model["id"] == card.id), None)
    if told is None:
        context = booted.settings.get(ModelSettings).options_for(card).context_length
        return ModelState(context_length=context)
    is_full = told["waiting"] >= booted.settings.get(QueueSettings).max_waiting
    problems = {
        "it cools down after crashes": told["state"] == "cooling",
        "its queue is full": is_full,
    }
    return ModelState(
        context_length=told["context_length"],
        is_loaded=told["state"] == "ready",
        running=told["running"],
        waiting=told["waiting"],
        tokens_per_s=told["figures"]["tokens_per_s"],
        problem=next((problem for problem, is_so in problems.items() if is_so), ""),
    )


def _first(
    booted: Booted,
    catalogue: Catalogue,
    request: GenerationRequest,
    decision: Decision,
    state: Callable[[ModelCard], ModelState],
) -> tuple[str, list[Skipped]]:
    skipped = []
    longest_s = booted.settings.get(QueueSettings).max_wait_s
    for name in decision.models[:1] if decision.strict else decision.models:
        try:
            card = catalogue.find(name)
            check(card, state(card), request, longest_s)
            if not state(card).is_loaded:
                _check_size(booted, card)
        except LmxError as error:
            skipped.append(Skipped(name, error.message))
        else:
            return card.id, skipped
    return "", skipped


def _check_size(booted: Booted, card: ModelCard) -> None:
    settings = booted.settings
    backends = Backends(partial(booted.plugins.backends, settings), booted.sections, settings)
    options = settings.get(ModelSettings).options_for(card)
    backend = backends.get(card.backend)
    needed = backend.estimate(card, options, backends.settings_of(card.backend)).total_bytes
    budget = settings.get(MemorySettings).resolve()
    if needed > budget:
        raise InsufficientMemoryError(
            f"does not fit: {needed / GIB:.2f} GiB are needed, and models may take "
            f"{budget / GIB:.2f} GiB"
        )
