"""``/api/v0/models``."""

from __future__ import annotations

from typing import cast, get_args

from falcon.asgi import Request, Response

from lmx_kernel.errors import ModelUnusableError
from lmx_kernel.http.json_body import send
from lmx_kernel.interfaces import Kernel, ModelStatus
from lmx_kernel.types import ModelCard
from lmx_lmstudio_api.model_facts import (
    EMBEDDING,
    TOOLS,
    VISION,
    listed_models,
    publisher_of,
    state_of,
    statuses,
)
from lmx_lmstudio_api.unknown_model import naming_models
from lmx_lmstudio_api.v0.objects import Format, LMStudioModel, LMStudioModels, ModelType

_FORMATS = frozenset(get_args(Format))


class Models:
    """The models that can be asked."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    async def on_get(self, req: Request, resp: Response) -> None:
        """List them; those of a format that clients do not know are left out."""
        known = statuses(self._kernel)
        cards = [card for card in listed_models(self._kernel) if card.format in _FORMATS]
        found: LMStudioModels = {
            "object": "list",
            "data": [_model(card, known.get(card.id)) for card in cards],
        }
        send(resp, found)


class Model:
    """One model, by its id or any other name the catalogue knows it by."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    async def on_get(self, req: Request, resp: Response, model: str) -> None:
        """Show it.

        :raises ModelNotFoundError: there is none.
        :raises ModelUnusableError: there is, but it cannot be loaded, or this API has no word for
            its format.
        """
        with naming_models(self._kernel, model):
            card = self._kernel.find(model)
        if card.problem is not None:
            raise ModelUnusableError(card.problem, param="model")
        if card.format not in _FORMATS:
            raise ModelUnusableError(
                f"{card.id} has the format {card.format}, which this API cannot express",
                param="model",
            )
        send(resp, _model(card, statuses(self._kernel).get(card.id)))


def _model(card: ModelCard, status: ModelStatus | None) -> LMStudioModel:
    state = state_of(status)
    model: LMStudioModel = {
        "id": card.id,
        "object": "model",
        "type": _type(card),
        "publisher": publisher_of(card),
        "arch": card.architecture,
        "compatibility_type": cast(Format, card.format),
        "quantization": card.quantization or "",
        "state": state,
        "max_context_length": card.context_length,
        "capabilities": _capabilities(card),
    }
    if status is not None and state == "loaded":
        model["loaded_context_length"] = status.context_length
    return model


def _type(card: ModelCard) -> ModelType:
    if EMBEDDING in card.capabilities:
        return "embeddings"
    return "vlm" if VISION in card.capabilities else "llm"


def _capabilities(card: ModelCard) -> list[str]:
    names = ["tool_use"] if TOOLS & card.capabilities else []
    return [*names, "vision"] if VISION in card.capabilities else names
