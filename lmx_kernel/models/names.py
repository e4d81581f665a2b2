"""Which model a name means."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable

from lmx_kernel.types import ModelCard

_Table = dict[str, dict[str, ModelCard]]


class Names:
    """Finds models by name, in any case and however accents are encoded: by id, then by alias, then
    by the last parts of an id or of an alias where only one model has them.

    An alias that several models claim belongs to the one that was added first, so a name keeps its
    model when another model arrives. Models that cannot be used come after all others.
    """

    def __init__(self, cards: Iterable[ModelCard]) -> None:
        ordered = sorted(cards, key=claim_order)
        self._exact = {card.id: card for card in ordered}
        self._ids = _table(ordered, lambda card: [card.id])
        self._aliases = _table(ordered, lambda card: card.aliases)
        self._ends = _table(ordered, lambda card: _ends([card.id]))
        self._alias_ends = _table(ordered, lambda card: _ends(card.aliases))

    def find(self, name: str) -> ModelCard | None:
        """Return the model of this name; None if there is none, or several."""
        key = folded(name)
        return (
            self._exact.get(name)
            or _only(self._ids, key)
            or next(iter(self._aliases.get(key, {}).values()), None)
            or _only(self._ends, key)
            or _only(self._alias_ends, key)
        )


def claim_order(card: ModelCard) -> tuple[bool, float, str]:
    """Return the sort key by which models claim names: usable ones first, then by age."""
    return card.problem is not None, card.added_at, card.id


def folded(name: str) -> str:
    """Return what is equal for names that differ in case alone, or in how accents are encoded:
    file names of macOS may be decomposed (Unicode's form NFD), what clients send seldom is.
    """
    return unicodedata.normalize("NFC", name).casefold()


def _table(cards: Iterable[ModelCard], names: Callable[[ModelCard], Iterable[str]]) -> _Table:
    """Return the models of each name, in order, by their ids."""
    table: _Table = defaultdict(dict)
    for card in cards:
        for name in names(card):
            table[folded(name)].setdefault(card.id, card)
    return dict(table)


def _ends(names: Iterable[str]) -> Iterable[str]:
    for name in names:
        parts = name.split("/")
        yield from ("/".join(parts[begin:]) for begin in range(1, len(parts)))


def _only(table: _Table, key: str) -> ModelCard | None:
    found = table.get(key, {})
    return next(iter(found.values())) if len(found) == 1 else None
