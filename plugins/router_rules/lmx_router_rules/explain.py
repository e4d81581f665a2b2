"""Where a request would go now, and why: what `lmx route` tells."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any

from attrs import frozen

from lmx_kernel.errors import (
    InsufficientMemoryError,
    InvalidRequestError,
)
from lmx_kernel.interfaces import HttpRequest, ModelState, RoutingContext
from lmx_kernel.kernel.assembly import scan
from lmx_kernel.kernel.boot import Booted
from lmx_kernel.memory.budget import MemorySettings
from lmx_kernel.memory.ledger import GIB
from lmx_kernel.models.backends import Backends
from lmx_kernel.routing.decide import RoutingSettings, arrange, check, decide
from lmx_kernel.routing.fallback import Attempt
from lmx_kernel.runtime.settings import ModelSettings, QueueSettings
from lmx_kernel.types import Decision, GenerationRequest, ModelCard, Skipped
from lmx_router_rules.choice import incapable
from lmx_router_rules.request_facts import RequestFacts
from lmx_router_rules.settings import RulesSettings
from lmx_router_rules.task import Task

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
    shown = RequestFacts(request, context, settings.get(RulesSettings).long_tokens)
    longest_s = settings.get(QueueSettings).max_wait_s

    async def find(name: str, prompt_tokens: int) -> ModelCard:
        card = catalogue.find(name)
        if reason := incapable(card, shown):
            raise InvalidRequestError(reason)
        check(card, state(card), prompt_tokens, longest_s)
        if not state(card).is_loaded:
            _check_size(booted, card)
        return card

    def context_length(name: str) -> int:
        return state(catalogue.find(name)).context_length

    attempt = Attempt(request.model, router, decision)
    asyncio.run(attempt.choose(shown.tokens, find, context_length, lambda card: card))
    return Explanation(
        asked=request.model,
        task=shown.task,
        prompt_tokens=shown.tokens,
        router=router,
        rule=decision.rule,
        reason=decision.reason,
        strict=decision.strict,
        chain=decision.models,
        model=attempt.model,
        skipped=attempt.skipped,
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
        wait_s=told["wait_s"],
        problem=next((problem for problem, is_so in problems.items() if is_so), ""),
    )


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
