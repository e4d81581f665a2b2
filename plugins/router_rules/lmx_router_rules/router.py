"""The router: the first rule that holds, in the config's order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from attrs import evolve

from lmx_kernel.config import Settings
from lmx_kernel.interfaces import RoutingContext
from lmx_kernel.types import Decision, GenerationRequest, ModelCard, Skipped
from lmx_router_rules.choice import Choice, choose
from lmx_router_rules.compiled_rules import CompiledRule, CompiledRules
from lmx_router_rules.request_facts import RequestFacts
from lmx_router_rules.settings import RulesSettings

NAME = "rules"
STRICT_HEADER = "x-lmx-strict"
RETRY_AFTER_S = 10
YES = frozenset({"1", "true", "yes"})


class RulesRouter:
    """Decides by the rules that are in force; a new config counts from the next request on."""

    name = NAME

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._models: tuple[ModelCard, ...] = ()
        self._compiled: CompiledRules | None = None

    def route(
        self, request: GenerationRequest, models: Sequence[ModelCard], context: RoutingContext
    ) -> Decision | None:
        """Return the decision of the first rule that holds and has a model that fits, or of the
        last one that holds if no model fits; None if no rule holds.
        """
        rules = self._compile(tuple(models))
        facts = RequestFacts(request, context, rules.settings.long_tokens)
        is_strict = facts.headers.get(STRICT_HEADER, "").lower() in YES
        if is_strict and rules.is_installed(request.model):
            return Decision((request.model,), "asked for by name", strict=True)
        decided: Choice | None = None
        for choice in _choices(rules.for_name(request.model), facts, is_strict=is_strict):
            decided = choice.after(decided)
            if decided.models:
                break
        return decided and _decision(decided, facts, is_strict=is_strict)

    def _compile(self, models: tuple[ModelCard, ...]) -> CompiledRules:
        settings, compiled = self._settings.get(RulesSettings), self._compiled
        if compiled is None or settings is not compiled.settings or models != self._models:
            self._compiled = compiled = CompiledRules(settings, models)
        self._models = models  # the same objects are quick to compare
        return compiled


def _choices(
    rules: Sequence[CompiledRule], facts: RequestFacts, *, is_strict: bool
) -> Iterator[Choice]:
    """Yield what each rule that holds makes of its models."""
    for one in rules:
        if one.holds(facts):
            is_only = is_strict or one.rule.strict
            choice = choose(one.rule, one.best if is_only else one.chain, facts)
            if is_only and not choice.models and not choice.may_pass:
                # No other model may take the request, so this one's own error is answered.
                choice = evolve(choice, models=tuple(one.best)[:1])
            yield choice


def _decision(choice: Choice, facts: RequestFacts, *, is_strict: bool) -> Decision:
    rule, models = choice.rule, choice.models
    return Decision(
        models,
        f"task {facts.task}" if rule.task else f"asked for {facts.request.model}",
        rule=rule.name,
        strict=rule.strict or is_strict,
        skipped=tuple(
            Skipped(name, why) for name, why in choice.misfits.items() if name not in models
        ),
        retry_after_s=RETRY_AFTER_S if choice.may_pass else None,
    )
