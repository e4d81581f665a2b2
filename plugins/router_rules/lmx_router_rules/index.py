"""The models there are, found by the names that rules call them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from lmx_kernel.models.names import Names
from lmx_kernel.types import ModelCard
from lmx_router_rules.conditions import is_glob, matcher


class Index:
    """Finds models by name as the catalogue does, by a glob, or by an alias of the config."""

    def __init__(
        self, models: tuple[ModelCard, ...], aliases: Mapping[str, tuple[str, ...]]
    ) -> None:
        self._models = models
        self._aliases = {name.casefold(): names for name, names in aliases.items()}
        self._names = Names(models)

    def find(self, name: str) -> ModelCard | None:
        """Return the model of this name; None if there is none, or several."""
        return self._names.find(name)

    def expand(self, names: Sequence[str]) -> dict[str, ModelCard | None]:
        """Return the models that a chain names, in its order, with None for those that are not
        there. Of a glob, the largest comes first.
        """
        chain: dict[str, ModelCard | None] = {}
        for leaf in self._leaves(names):
            for name, card in self._models_of(leaf):
                chain.setdefault(name, card)
        return chain

    def expand_first(self, names: Sequence[str]) -> dict[str, ModelCard | None]:
        """Return what the first name of a chain stands for, once aliases are followed."""
        return dict(self._models_of(next(self._leaves(names))))

    def _leaves(self, names: Sequence[str]) -> Iterator[str]:
        for name in names:
            alias = self._aliases.get(name.casefold())
            if alias is None:
                yield name
            else:
                yield from self._leaves(alias)

    def _models_of(self, leaf: str) -> Iterator[tuple[str, ModelCard | None]]:
        if is_glob(leaf):
            yield from ((card.id, card) for card in self._matching(leaf))
        else:
            found = self.find(leaf)
            yield found.id if found else leaf, found

    def _matching(self, glob: str) -> Iterator[ModelCard]:
        is_match = matcher([glob])
        usable = (card for card in self._models if not card.problem)
        for card in sorted(usable, key=lambda card: (-card.size_bytes, card.id)):
            if is_match(card.id) or is_match(card.id.rpartition("/")[2]):
                yield card
