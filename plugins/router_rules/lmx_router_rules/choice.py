"""Which models of a rule's chain a request may go to, best first."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from hashlib import blake2b
from typing import Any

from attrs import evolve, frozen

from lmx_kernel.interfaces import ModelState
from lmx_kernel.types import ModelCard
from lmx_router_rules.request_facts import RequestFacts
from lmx_router_rules.settings import Rule

EMBEDDING, VISION = "embedding", "vision"


@frozen
class Choice:
    """Which models of a rule a request may go to.

    :ivar models: those that fit, best first.
    :ivar misfits: why each of the others does not.
    :ivar may_pass: whether one of these would fit at another time.
    """

    rule: Rule
    models: tuple[str, ...]
    misfits: dict[str, str]
    may_pass: bool

    def after(self, earlier: Choice | None) -> Choice:
        """Return this with the misfits of the rules before it, whose reasons count first."""
        if earlier is None:
            return self
        return evolve(
            self,
            misfits=self.misfits | earlier.misfits,
            may_pass=self.may_pass or earlier.may_pass,
        )


def choose(rule: Rule, chain: Mapping[str, ModelCard | None], facts: RequestFacts) -> Choice:
    """Return which models of ``chain`` fit."""
    fitting: list[tuple[ModelCard, ModelState]] = []
    misfits: dict[str, str] = {}
    may_pass = False
    for name, card in chain.items():
        if card is None:
            misfits[name] = "not installed"
        elif reason := _incapable(card, facts):
            misfits[name] = reason
        elif reason := _unwanted(rule, state := facts.context.state(card)):
            misfits[name] = reason
            may_pass = True
        else:
            fitting.append((card, state))
    if len(fitting) > 1 and (rule.balance or rule.prefer_loaded):
        order = _balanced(rule, facts) if rule.balance else _loaded_first
        fitting.sort(key=order)
    return Choice(rule, tuple(card.id for card, _ in fitting), misfits, may_pass)


def _incapable(card: ModelCard, facts: RequestFacts) -> str:
    """Return why a model can never take such a request, "" if it can."""
    if facts.wants_embeddings is not (EMBEDDING in card.capabilities):
        return "makes no embeddings" if facts.wants_embeddings else "makes embeddings only"
    if facts.has_images and VISION not in card.capabilities:
        return "takes no images"
    return ""


def _unwanted(rule: Rule, state: ModelState) -> str:
    """Return why the rule does not want a model now, "" if it does."""
    if rule.loaded is not None and state.is_loaded is not rule.loaded:
        return "not loaded" if rule.loaded else "loaded"
    if rule.max_waiting is not None and state.waiting > rule.max_waiting:
        return f"{state.waiting} requests wait for it"
    if rule.max_wait_s is not None and state.wait_s > rule.max_wait_s:
        return f"it could begin in {state.wait_s:.1f} s"
    speed = state.tokens_per_s
    if rule.min_tokens_per_s is not None and speed is not None and speed < rule.min_tokens_per_s:
        return f"makes {speed:.1f} tokens a second"
    return ""


def _loaded_first(one: tuple[ModelCard, ModelState]) -> bool:
    return not one[1].is_loaded


def _balanced(rule: Rule, facts: RequestFacts) -> Callable[[tuple[ModelCard, ModelState]], Any]:
    def order(one: tuple[ModelCard, ModelState]) -> tuple[object, ...]:
        card, state = one
        if not rule.sticky:
            return not state.is_loaded, state.waiting, state.running, card.id
        home = blake2b(card.id.encode(), key=facts.beginning, digest_size=8).digest()
        return not state.is_loaded, state.waiting, home

    return order
