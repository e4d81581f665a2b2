"""The models on disk and the loaded ones, as LM Studio's commands print them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from lmx_kernel.cli.client import Client
from lmx_kernel.errors import UnavailableError
from lmx_kernel.types import ModelCard
from lmx_lmstudio_api.model_facts import state_of
from lmx_lmstudio_api.model_info import instance_info, model_info

_FIELDS = ("id", "backend", "format", "architecture", "size_bytes", "context_length")


def downloaded() -> list[dict[str, Any]]:
    """Return the models that can be loaded, of the daemon if one runs, else of this machine."""
    try:
        cards = [card for card, _ in _models(Client.find())]
    except UnavailableError:
        from lmx_kernel.kernel.boot import boot  # noqa: PLC0415 - takes long
        from lmx_kernel.kernel.scan import scan  # noqa: PLC0415 - takes long

        cards = list(scan(boot()).cards)
    return [model_info(card) for card in cards if card.problem is None]


def loaded(client: Client) -> list[dict[str, Any]]:
    """Return the models in memory.

    :raises LmxError: as :meth:`Client.get`.
    """
    return [_instance(card, status) for card, status in _models(client) if _is_loaded(status)]


def _models(client: Client) -> list[tuple[ModelCard, Any]]:
    """Return the daemon's models, each with its status, None if nobody asked for it."""
    infos = client.get("/admin/models", fit="false")["models"]
    return [(_card(info), info["status"] and SimpleNamespace(**info["status"])) for info in infos]


def _card(info: Mapping[str, Any]) -> ModelCard:
    return ModelCard(
        **{name: info[name] for name in _FIELDS},
        path=Path(info["id"]),
        quantization=info["quantization"],
        capabilities=frozenset(info["capabilities"]),
        problem=info["problem"],
    )


def _is_loaded(status: Any) -> bool:
    return state_of(status) == "loaded"


def _instance(card: ModelCard, status: Any) -> dict[str, Any]:
    info = instance_info(card, status, card.id)
    del info["instanceReference"]  # the original tells none
    return info | {
        "status": "generating" if status.running else "idle",
        "queued": status.waiting,
        "parallel": status.parallel,
    }
