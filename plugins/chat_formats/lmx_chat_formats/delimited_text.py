"""Lark rules of texts that go on until a mark."""

from __future__ import annotations

import re
from typing import Any

from attrs import define, field

from lmx_chat_formats.grammar import literal
from lmx_kernel.text.formats.schema_texts import whole

MOST_CHARS = 512
"""Bounds that are further out are not held: the mask's library keeps some ten states for each
character that it counts, and fails in the middle of an answer that needs too many."""


@define
class Texts:
    """The rules of the texts before one mark, the mark included: one for each kind of text.

    The mark may be a control token of the vocabulary, which is no text, or plain text, before which
    only a lazy terminal stops. A format cannot know which, so that there is a way for each.

    :ivar mark: what ends a text.
    :ivar lead: what may stand before the mark without being of the text.
    :ivar rules: by name.
    """

    mark: str
    lead: str = ""
    rules: dict[str, str] = field(factory=dict, init=False)
    _names: dict[tuple[int, int | None, tuple[str, ...]], str] = field(factory=dict, init=False)

    def rule(self, wanted: dict[str, Any]) -> str:
        """Return the name of the rule for texts as a schema wants them: as long, and with patterns
        but for those with anchors in their middle.
        """
        low, high = _bound(wanted, "minLength") or 0, _bound(wanted, "maxLength")
        patterns = _patterns(wanted)
        key = (low, high, patterns)
        if key not in self._names:
            self._names[key] = name = f"text_{len(self._names)}"
            self.rules |= self._rules(name, low, high, patterns)
        return self._names[key]

    def lines(self) -> list[str]:
        """Return all rules that were asked for."""
        return [f"{name}: {rule}" for name, rule in self.rules.items()]

    def _rules(
        self, name: str, low: int, high: int | None, patterns: tuple[str, ...]
    ) -> dict[str, str]:
        if high == 0:
            return {name: literal(self.mark)}
        chars, mark = name.upper(), _pattern(self.mark)
        may_be_empty = not low and all(map(_matches_nothing, patterns))
        some = f"{chars}{'?' if may_be_empty else ''}"
        span = f"{{{max(low, 1)},{'' if high is None else high}}}"
        held = "".join(f" & /{_between_slashes(pattern)}/" for pattern in patterns)
        return {
            name: f"{name}_plain | {some} {literal(self.mark)}",
            f"{name}_plain[lazy]": f"{some} /({_pattern(self.lead)})?{mark}/",
            chars: f"/(?s:.{span})/ & ~/(?s:.*){mark}(?s:.*)/{held}",
        }


def _patterns(wanted: dict[str, Any]) -> tuple[str, ...]:
    """Return the patterns of a text in normal form, each of the whole text."""
    schemas = [wanted, *wanted.get("allOf", ())]
    found = [whole(schema["pattern"]) for schema in schemas if "pattern" in schema]
    return tuple(pattern for pattern in found if pattern is not None)


def _matches_nothing(pattern: str) -> bool:
    """Return whether an empty text fits."""
    try:
        return re.fullmatch(pattern, "") is not None
    except (re.error, RecursionError, OverflowError):
        return False


def _bound(wanted: dict[str, Any], key: str) -> int | None:
    found = wanted.get(key)
    return found if isinstance(found, int) and 0 <= found <= MOST_CHARS else None


def _pattern(text: str) -> str:
    """Return the pattern of a text, as between the slashes of a Lark terminal."""
    return re.escape(text).replace("/", r"\/").replace("\\\n", r"\n")


def _between_slashes(pattern: str) -> str:
    """Return a pattern as between the slashes of a Lark terminal."""
    escaped = re.sub(
        r"\\.|/", lambda found: found[0] if len(found[0]) > 1 else r"\/", pattern, flags=re.DOTALL
    )
    return escaped.replace("\n", r"\n")
