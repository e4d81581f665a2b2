"""Names of the models in a folder, which may hold several quantisations."""

from __future__ import annotations

from collections.abc import Callable

from attrs import evolve

from lmx_kernel.models.labels import is_label, label_of
from lmx_kernel.models.names import claim_order
from lmx_kernel.types import ModelCard


def named(place: str, cards: list[ModelCard]) -> list[ModelCard]:
    """Give each model at ``place`` an id of its own, and further names.

    The one that was there first is called ``place``, so it keeps its id when others arrive. Each
    also answers to ``place@label``: by the label in its file's name, the quantisation that its
    header tells and the whole name, as far as no other has a better claim to these. In a folder
    that is called by a label, such as ``maker/model/Q4_K_M``, it answers to ``maker/model@Q4_K_M``
    too, and to ``maker/model`` where no other model does.
    """
    oldest_first = sorted(cards, key=lambda card: (*claim_order(card)[:2], card.path.name))
    names: dict[str, list[str]] = {card.path.name: [] for card in cards}
    taken: set[str] = set()
    kinds: tuple[Callable[[ModelCard], str | None], ...] = (
        lambda card: label_of(card.path.name),
        lambda card: card.quantization,
        lambda card: card.path.stem,
    )
    for label in kinds:
        for card in oldest_first:
            name = f"{place}@{label(card)}"
            if label(card) and name.casefold() not in taken:
                taken.add(name.casefold())
                names[card.path.name].append(name)
    for card in oldest_first[:1]:
        names[card.path.name].insert(0, place)
    return [_with_names(card, place, names[card.path.name]) for card in cards]


def _with_names(card: ModelCard, place: str, names: list[str]) -> ModelCard:
    names = names or [f"{place}@{card.path.name}"]  # its name is another's in other letters
    parent, _, folder = place.rpartition("/")
    if parent and is_label(folder):
        names = [*names, f"{parent}@{folder}", parent]
    return evolve(card, id=names[0], aliases=tuple(names[1:]))
