"""Lark rules of texts that go on until a mark."""

from __future__ import annotations

import re
from typing import Any

from attrs import define, field

from lmx_chat_formats.grammar import literal

MOST_CHARS = 512
"""Bounds that are further out are not held: the mask's library keeps some ten states for each
character that it counts, and fails in the middle of an answer that needs too many."""


@define
class Texts:
    """The rules of the texts before one mark, the mark included: one for each pair of bounds.

    The mark may be a control token of the vocabulary, which is no text, or plain text, before which
    only a lazy terminal stops. A format cannot know which, so that there is a way for each.

    :ivar mark: what ends a text.
    :ivar lead: what may stand before the mark without being of the text.
    :ivar rules: by name.
    """

    mark: str
    lead: str = ""
    rules: dict[str, str] = field(factory=dict, init=False)

    def rule(self, wanted: dict[str, Any]) -> str:
        """Return the name of the rule for texts as long as a schema wants them."""
        low, high = _bound(wanted, "minLength") or 0, _bound(wanted, "maxLength")
        name = f"text_{low}_{'' if high is None else high}"
        if name not in self.rules:
            self.rules |= self._rules(name, low, high)
        return name

    def lines(self) -> list[str]:
        """Return all rules that were asked for."""
        return [f"{name}: {rule}" for name, rule in self.rules.items()]

    def _rules(self, name: str, low: int, high: int | None) -> dict[str, str]:
        if high == 0:
            return {name: literal(self.mark)}
        chars, mark = name.upper(), _pattern(self.mark)
        some = f"{chars}{'' if low else '?'}"
        span = f"{{{max(low, 1)},{'' if high is None else high}}}"
        return {
            name: f"{name}_plain | {some} {literal(self.mark)}",
            f"{name}_plain[lazy]": f"{some} /({_pattern(self.lead)})?{mark}/",
            chars: f"/(?s:.{span})/ & ~/(?s:.*){mark}(?s:.*)/",
        }


def _bound(wanted: dict[str, Any], key: str) -> int | None:
    found = wanted.get(key)
    return found if isinstance(found, int) and 0 <= found <= MOST_CHARS else None


def _pattern(text: str) -> str:
    """Return the pattern of a text, as between the slashes of a Lark terminal."""
    return re.escape(text).replace("/", r"\/").replace("\\\n", r"\n")
