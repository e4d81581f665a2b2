"""What a chat template says of its model, without being run."""

from __future__ import annotations

import re

_THINKING = re.compile(r"enable_thinking|reasoning_effort|<think>|\[THINK\]|<\|channel>thought")


def capabilities_of(template: str | None) -> frozenset[str]:
    """Return what a model that generates text can do: ``completion``, and with a chat template
    ``chat`` and, where it has words for reasoning, ``thinking``.
    """
    if not template:
        return frozenset({"completion"})
    thinking = {"thinking"} if _THINKING.search(template) else set()
    return frozenset({"chat", "completion", *thinking})
