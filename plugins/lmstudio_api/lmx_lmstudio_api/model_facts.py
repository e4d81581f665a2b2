"""What both versions of the API tell of a model."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from lmx_kernel.types import ModelCard

if TYPE_CHECKING:  # commands use this module as well
    from lmx_kernel.interfaces import Kernel, ModelStatus

Loaded = Literal["loaded", "loading", "not-loaded"]
EMBEDDING, VISION = "embedding", "vision"
TOOLS = frozenset({"chat"})  # a model with a chat template is given tools, and its calls are parsed
_STATES: Mapping[str, Loaded] = {
    "loading": "loading",
    "ready": "loaded",
    "draining": "loaded",
}
_SIZE = re.compile(r"(?<![A-Za-z0-9.])(?:\d+x)?\d+(?:\.\d+)?[BM](?![A-Za-z0-9])", re.IGNORECASE)


def statuses(kernel: Kernel) -> Mapping[str, ModelStatus]:
    """Return the status of each model that was asked for, by id."""
    return {status.id: status for status in kernel.model_statuses()}


def state_of(status: ModelStatus | None) -> Loaded:
    """Return whether a model is loaded, in the words of this API."""
    return _STATES.get(status.state, "not-loaded") if status else "not-loaded"


def listed_models(kernel: Kernel) -> list[ModelCard]:
    """Return the models that a client may ask: all that can be loaded, or only those that are in
    memory where requests do not load models (``models.jit``).
    """
    cards = [card for card in kernel.models() if card.problem is None]
    from lmx_kernel.runtime.settings import ModelSettings  # noqa: PLC0415 - of no use to commands

    if kernel.settings(ModelSettings).jit:
        return cards
    known = statuses(kernel)
    return [card for card in cards if state_of(known.get(card.id)) != "not-loaded"]


def publisher_of(card: ModelCard) -> str:
    """Return who published a model; "" if its name does not tell."""
    publisher, slash, _ = card.id.partition("/")
    return publisher if slash else ""


def parameters_of(card: ModelCard) -> str | None:
    """Return how many parameters a model has, such as ``7B``, if its name tells."""
    match = _SIZE.search(card.id.rpartition("/")[2])
    return match[0].upper().replace("X", "x") if match else None
