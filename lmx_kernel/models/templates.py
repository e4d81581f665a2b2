"""What a chat template says of its model, without being run."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from attrs import evolve

from lmx_kernel.hookspecs import TEMPLATE_GROUP
from lmx_kernel.plugins.entry_points import entry_points
from lmx_kernel.types import ModelCard

_THINKING = re.compile(r"enable_thinking|reasoning_effort|<think>|\[THINK\]|<\|channel>thought")


def capabilities_of(template: str | None) -> frozenset[str]:
    """Return what a model that generates text can do: ``completion``, and with a chat template
    ``chat`` and, where it has words for reasoning, ``thinking``.
    """
    if not template:
        return frozenset({"completion"})
    thinking = {"thinking"} if _THINKING.search(template) else set()
    return frozenset({"chat", "completion", *thinking})


def with_lent_templates(cards: Iterable[ModelCard]) -> Iterator[ModelCard]:
    """Yield ``cards``; models that have no chat template, and get that of a plugin when they are
    loaded, can chat.
    """
    for card in cards:
        is_bare = "completion" in card.capabilities and "chat" not in card.capabilities
        if is_bare and entry_points(TEMPLATE_GROUP, card.architecture):
            yield evolve(card, capabilities=card.capabilities | {"chat"})
        else:
            yield card
