"""The rules in force, compiled for the models there are."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase
from functools import lru_cache

from attrs import frozen

from lmx_kernel.types import ModelCard
from lmx_router_rules.conditions import Condition, conditions, is_glob
from lmx_router_rules.index import Index
from lmx_router_rules.request_facts import RequestFacts
from lmx_router_rules.settings import Rule, RulesSettings

REMEMBERED_NAMES = 256


@frozen
class CompiledRule:
    """A rule whose conditions are functions and whose names are models.

    :ivar conditions: all must be true of a request.
    :ivar chain: its models by name, None for those that are not installed.
    :ivar best: the only models that a strict request may use: the first of the chain, or all of it
        where load decides the order.
    """

    rule: Rule
    conditions: tuple[Condition, ...]
    chain: dict[str, ModelCard | None]
    best: dict[str, ModelCard | None]

    def holds(self, facts: RequestFacts) -> bool:
        """Return whether the rule is for a request."""
        for condition in self.conditions:  # noqa: SIM110 - all() takes twice as long
            if not condition(facts):
                return False
        return True


class CompiledRules:
    """All rules, by the names that clients ask for.

    :ivar settings: what they were compiled from.
    :ivar for_name: returns the rules for requests that ask for a name, in their order.
    :ivar is_installed: whether a name is a model's own.
    """

    def __init__(self, settings: RulesSettings, models: tuple[ModelCard, ...]) -> None:
        index = Index(models, settings.aliases)
        self.settings = settings
        self._compiled = [_compile(rule, index) for rule in all_rules(settings)]
        self.is_installed = lru_cache(REMEMBERED_NAMES)(lambda name: index.find(name) is not None)
        self.for_name = lru_cache(REMEMBERED_NAMES)(self._for_name)

    def _for_name(self, name: str) -> tuple[CompiledRule, ...]:
        return tuple(one for one in self._compiled if self._is_for(one.rule, name))

    def _is_for(self, rule: Rule, name: str) -> bool:
        """Return whether a rule is for a name. A glob matches installed models only with `swap`."""
        is_own = self.is_installed(name) and not rule.swap
        return any(
            fnmatchcase(name.casefold(), one.casefold())
            for one in rule.asked or self.settings.auto
            if not (is_own and is_glob(one))
        )


def _compile(rule: Rule, index: Index) -> CompiledRule:
    chain = index.expand(rule.models)
    is_ordered = not (rule.balance or rule.prefer_loaded)
    best = index.expand_first(rule.models) if is_ordered else chain
    return CompiledRule(rule, tuple(conditions(rule)), chain, best)


def all_rules(settings: RulesSettings) -> Iterator[Rule]:
    """Yield the rules, then the aliases and the default as rules."""
    yield from settings.rules
    for name, models in settings.aliases.items():
        yield Rule(name=f"alias {name}", models=models, asked=(name,))
    yield Rule(name="default", models=settings.default, prefer_loaded=True)
