"""Which models of a rule's chain a request may go to, best first."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from hashlib import blake2b
from typing import Any

from lmx_kernel.interfaces import ModelState
from lmx_kernel.types import ModelCard
from lmx_router_rules.settings import Rule
from lmx_router_rules.shown import Shown

EMBEDDING, VISION = "embedding", "vision"


def choose(
    rule: Rule, chain: Mapping[str, ModelCard | None], shown: Shown
) -> tuple[tuple[str, ...], dict[str, str]]:
    """Return the models of ``chain`` that fit, best first, and why each of the others does not."""
    fitting: list[tuple[ModelCard, ModelState]] = []
    misfits: dict[str, str] = {}
    for name, card in chain.items():
        state = shown.context.state(card) if card else None
        reason = _misfit(rule, card, state, shown)
        if reason or card is None or state is None:
            misfits[name] = reason
        else:
            fitting.append((card, state))
    if len(fitting) > 1 and (rule.balance or rule.prefer_loaded):
        order = _balanced(rule, shown) if rule.balance else _loaded_first
        fitting.sort(key=order)
    return tuple(card.id for card, _ in fitting), misfits


def _misfit(rule: Rule, card: ModelCard | None, state: ModelState | None, shown: Shown) -> str:
    """Return why a model does not fit, "" if it does."""
    if card is None or state is None:
        return "not installed"
    return _incapable(card, shown) or _unwanted(rule, state)


def _incapable(card: ModelCard, shown: Shown) -> str:
    if shown.wants_embeddings is not (EMBEDDING in card.capabilities):
        return "makes no embeddings" if shown.wants_embeddings else "makes embeddings only"
    if shown.has_images and VISION not in card.capabilities:
        return "takes no images"
    return ""


def _unwanted(rule: Rule, state: ModelState) -> str:
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


def _balanced(rule: Rule, shown: Shown) -> Callable[[tuple[ModelCard, ModelState]], Any]:
    def order(one: tuple[ModelCard, ModelState]) -> tuple[object, ...]:
        card, state = one
        if not rule.sticky:
            return not state.is_loaded, state.waiting, state.running, card.id
        home = blake2b(card.id.encode(), key=shown.beginning, digest_size=8).digest()
        return not state.is_loaded, state.waiting, home

    return order
