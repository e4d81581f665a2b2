"""The models there are, found by the names that rules call them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from lmx_kernel.types import ModelCard
from lmx_router_rules.conditions import is_glob, matcher


class Index:
    """Finds models by id, by the last part of an id if only one has it, or by a glob."""

    def __init__(self, models: tuple[ModelCard, ...]) -> None:
        self._models = models
        self._by_name: dict[str, list[ModelCard]] = defaultdict(list)
        for card in models:
            parts = card.id.casefold().split("/")
            for begin in range(1, len(parts)):
                self._by_name["/".join(parts[begin:])].append(card)
        self._by_name.update({card.id.casefold(): [card] for card in models})

    def find(self, name: str) -> ModelCard | None:
        """Return the model of this name; None if there is none, or several."""
        found = self._by_name.get(name.casefold(), ())
        return found[0] if len(found) == 1 else None

    def expand(
        self, names: Sequence[str], aliases: Mapping[str, tuple[str, ...]]
    ) -> dict[str, ModelCard | None]:
        """Return the models that a chain names, in its order, with None for those that are not
        there. Of a glob, the largest comes first.
        """
        chain: dict[str, ModelCard | None] = {}
        for name in names:
            if name in aliases:
                for one, card in self.expand(aliases[name], aliases).items():
                    chain.setdefault(one, card)
            elif is_glob(name):
                for card in self._matching(name):
                    chain.setdefault(card.id, card)
            else:
                found = self.find(name)
                chain.setdefault(found.id if found else name, found)
        return chain

    def _matching(self, glob: str) -> Iterator[ModelCard]:
        is_match = matcher([glob])
        usable = (card for card in self._models if not card.problem)
        for card in sorted(usable, key=lambda card: (-card.size_bytes, card.id)):
            if is_match(card.id) or is_match(card.id.rpartition("/")[2]):
                yield card
