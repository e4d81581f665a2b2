"""What `lmx doctor` says of the rules."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lmx_kernel.config import Settings
from lmx_kernel.interfaces import Finding
from lmx_kernel.routing.decide import RoutingSettings
from lmx_kernel.types import ModelCard
from lmx_router_rules.compiled_rules import all_rules
from lmx_router_rules.index import Index
from lmx_router_rules.router import NAME
from lmx_router_rules.settings import RulesSettings

SUBJECT = "router_rules"


def examine(settings: Settings, models: Sequence[ModelCard]) -> Iterator[Finding]:
    """Yield warnings, or else one line that all is well. A chain may name what is not there yet, so
    none of this is a failure.
    """
    rules = settings.get(RulesSettings)
    warnings = [*_unasked(settings), *_unknown(rules, Index(tuple(models), rules.aliases))]
    for warning in warnings:
        yield Finding(True, SUBJECT, f"warning: {warning}")
    if not warnings:
        text = f"{len(rules.rules)} rules and {len(rules.aliases)} aliases, all models are there"
        yield Finding(True, SUBJECT, text)


def _unasked(settings: Settings) -> Iterator[str]:
    order = settings.get(RoutingSettings).order
    if order and NAME not in order:
        yield f'"{NAME}" is not in routing.order, so no rule is asked'


def _unknown(rules: RulesSettings, index: Index) -> Iterator[str]:
    for rule in all_rules(rules):
        chain = index.expand(rule.models)
        missing = [name for name, card in chain.items() if card is None]
        if missing:
            yield f"{rule.name} names models that are not installed: {', '.join(missing)}"
