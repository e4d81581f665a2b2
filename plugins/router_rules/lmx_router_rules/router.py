"""The router: the first rule that holds, in the config's order."""

from __future__ import annotations

from collections.abc import Sequence

from lmx_kernel.config import Settings
from lmx_kernel.interfaces import RoutingContext
from lmx_kernel.types import Decision, GenerationRequest, ModelCard, Skipped
from lmx_router_rules.choice import choose
from lmx_router_rules.compiled_rules import CompiledRule, CompiledRules
from lmx_router_rules.request_facts import RequestFacts
from lmx_router_rules.settings import Rule, RulesSettings

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
        self._book: CompiledRules | None = None

    def route(
        self, request: GenerationRequest, models: Sequence[ModelCard], context: RoutingContext
    ) -> Decision | None:
        """Return what the first rule says that holds and has a model that fits; None if none is for
        such a request.
        """
        book = self._open(tuple(models))
        shown = RequestFacts(request, context, book.rules.long_tokens)
        is_strict = shown.headers.get(STRICT_HEADER, "").lower() in YES
        if is_strict and book.is_installed(request.model):
            return Decision((request.model,), "asked for by name", strict=True)
        return _decide(book.for_name(request.model), shown, is_strict=is_strict)

    def _open(self, models: tuple[ModelCard, ...]) -> CompiledRules:
        rules = self._settings.get(RulesSettings)
        if self._book is None or rules is not self._book.rules or models != self._models:
            self._book = CompiledRules(rules, models)
        self._models = models  # the same objects are quick to compare
        return self._book


def _decide(
    book: Sequence[CompiledRule], shown: RequestFacts, *, is_strict: bool
) -> Decision | None:
    passed: dict[str, str] = {}
    decided: tuple[Rule, tuple[str, ...]] | None = None
    may_pass = False
    for ready in book:
        if ready.holds(shown):
            is_only = is_strict or ready.rule.strict
            choice = choose(ready.rule, ready.best if is_only else ready.chain, shown)
            passed = choice.misfits | passed
            may_pass |= choice.may_pass
            found = choice.models
            if is_only and not found and not choice.may_pass:
                found = tuple(ready.best)[:1]  # no other will do, so its own error is answered
            decided = ready.rule, found
            if found:
                break
    if decided is None:
        return None
    rule, found = decided
    return Decision(
        found,
        f"task {shown.task}" if rule.task else f"asked for {shown.request.model}",
        rule=rule.name,
        strict=rule.strict or is_strict,
        skipped=tuple(Skipped(name, why) for name, why in passed.items() if name not in found),
        retry_after_s=RETRY_AFTER_S if may_pass else None,
    )
