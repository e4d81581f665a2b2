"""The router: the first rule that holds, in the config's order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from attrs import frozen

from lmx_kernel.config import Settings
from lmx_kernel.interfaces import RoutingContext
from lmx_kernel.types import Decision, GenerationRequest, ModelCard, Skipped
from lmx_router_rules.choice import choose
from lmx_router_rules.conditions import Condition, conditions, is_glob, matcher
from lmx_router_rules.index import Index
from lmx_router_rules.settings import Rule, RulesSettings
from lmx_router_rules.shown import Shown

NAME = "rules"
STRICT_HEADER = "x-lmx-strict"
YES = frozenset({"1", "true", "yes"})


@frozen
class Ready:
    """A rule, ready to be asked.

    :ivar is_asked: whether it holds for the name that a client asks for.
    :ivar may_swap: the same for a name that an installed model has.
    :ivar chain: its models by name, None for those that are not installed.
    """

    rule: Rule
    is_asked: Callable[[str], bool]
    may_swap: Callable[[str], bool]
    conditions: tuple[Condition, ...]
    chain: dict[str, ModelCard | None]

    def holds(self, shown: Shown, *, is_installed: bool) -> bool:
        """Return whether the rule is for this request."""
        asked = shown.request.model
        if not (self.may_swap if is_installed else self.is_asked)(asked):
            return False
        return all(condition(shown) for condition in self.conditions)


class RulesRouter:
    """Decides by the rules that are in force; a new config counts from the next request on."""

    name = NAME

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._rules: RulesSettings | None = None
        self._index = Index(())
        self._ready: tuple[Ready, ...] = ()

    def route(
        self, request: GenerationRequest, models: Sequence[ModelCard], context: RoutingContext
    ) -> Decision | None:
        """Return what the first rule says that holds and has a model that fits; None if none is for
        such a request.
        """
        rules = self._prepare(models)
        shown = Shown(request, context, rules.long_tokens)
        is_installed = self._index.find(request.model) is not None
        is_strict = shown.headers.get(STRICT_HEADER, "").lower() in YES
        if is_installed and is_strict:
            return None
        return self._decide(shown, is_installed=is_installed, is_strict=is_strict)

    def _decide(self, shown: Shown, *, is_installed: bool, is_strict: bool) -> Decision | None:
        passed: list[Skipped] = []
        last: Rule | None = None
        for ready in self._ready:
            if not ready.holds(shown, is_installed=is_installed):
                continue
            last = ready.rule
            found, skipped = choose(ready.rule, ready.chain, shown)
            passed += skipped
            if found:
                return _decision(ready.rule, found, passed, shown, is_strict=is_strict)
        return last and _decision(last, (), passed, shown, is_strict=is_strict)

    def _prepare(self, models: Sequence[ModelCard]) -> RulesSettings:
        rules = self._settings.get(RulesSettings)
        known = tuple(models)
        if rules is not self._rules or known != self._index.models:
            self._rules, self._index = rules, Index(known)
            self._ready = tuple(_ready(rule, rules, self._index) for rule in all_rules(rules))
        return rules


def all_rules(settings: RulesSettings) -> Iterator[Rule]:
    """Yield the rules, then the aliases and the default as rules."""
    yield from settings.rules
    for name, models in settings.aliases.items():
        yield Rule(name=f"alias {name}", models=models, asked=(name,))
    yield Rule(name="default", models=settings.default, prefer_loaded=True)


def _ready(rule: Rule, settings: RulesSettings, index: Index) -> Ready:
    asked = rule.asked or settings.auto
    swapped = asked if rule.swap else [name for name in asked if not is_glob(name)]
    return Ready(
        rule,
        is_asked=matcher(asked),
        may_swap=matcher(swapped) if swapped else lambda _: False,
        conditions=tuple(conditions(rule)),
        chain=index.expand(rule.models, settings.aliases),
    )


def _decision(
    rule: Rule,
    models: tuple[str, ...],
    skipped: Sequence[Skipped],
    shown: Shown,
    *,
    is_strict: bool,
) -> Decision:
    reason = f"task {shown.task}" if rule.task else f"asked for {shown.request.model}"
    return Decision(
        models,
        reason,
        rule=rule.name,
        strict=rule.strict or is_strict,
        max_wait_s=rule.max_wait_s,
        skipped=tuple(dict.fromkeys(skipped)),
    )
