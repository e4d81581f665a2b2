"""``/api/v1/models``: the models on disk, and their loads."""

from __future__ import annotations

import re
import time
from contextlib import suppress

from attrs import frozen
from falcon.asgi import Request, Response

from lmx_kernel.dialect.audit import audited
from lmx_kernel.dialect.refused import check_supported
from lmx_kernel.errors import ModelNotFoundError
from lmx_kernel.http.json_body import read_body, send
from lmx_kernel.interfaces import Kernel, ModelStatus
from lmx_kernel.types import LoadOverrides, ModelCard
from lmx_lmstudio_api.model_facts import (
    EMBEDDING,
    TOOLS,
    VISION,
    parameters_of,
    publisher_of,
    state_of,
    statuses,
)
from lmx_lmstudio_api.unknown_model import naming_models
from lmx_lmstudio_api.v1.model_objects import (
    InstanceConfig,
    LoadedModel,
    LocalModel,
    LocalModels,
    ModelKind,
    Quantization,
    UnloadedModel,
)
from lmx_lmstudio_api.v1.model_schema import LoadModelBody, UnloadModelBody

_BITS = re.compile(r"\d{1,2}")  # as in Q4_K_M, BF16 and 4bit


@frozen
class Models:
    """The models on disk."""

    kernel: Kernel

    async def on_get(self, req: Request, resp: Response) -> None:
        """List all that can be loaded."""
        known = statuses(self.kernel)
        cards = [card for card in self.kernel.models() if card.problem is None]
        found: LocalModels = {"models": [_model(card, known.get(card.id)) for card in cards]}
        send(resp, found)


@frozen
class Load:
    """Loads models."""

    kernel: Kernel

    async def on_post(self, req: Request, resp: Response) -> None:
        """Load one, and answer when it is ready. One that is loaded as asked for stays as it is.

        :raises ModelNotFoundError: there is none of that name.
        :raises LmxError: it cannot be loaded.
        """
        body = await read_body(req, LoadModelBody)
        check_supported(body)
        begun = time.monotonic()
        with audited(req, "load", body.model), naming_models(self.kernel, body.model):
            card = await self._load(body)
        status = statuses(self.kernel)[card.id]
        found: LoadedModel = {
            "type": _kind(card),
            "instance_id": card.id,
            "load_time_seconds": time.monotonic() - begun,
            "status": "loaded",
        }
        if body.echo_load_config:
            found["load_config"] = _config(status)
        send(resp, found)

    async def _load(self, body: LoadModelBody) -> ModelCard:
        length = body.context_length
        with suppress(ModelNotFoundError):  # the load looks at the disk again
            card = self.kernel.find(body.model)
            status = statuses(self.kernel).get(card.id)
            if status is not None and state_of(status) == "loaded":
                length = min(length or status.context_length, card.context_length)
                if length == status.context_length and status.ttl_s is None:
                    return card
        loaded = await self.kernel.load(body.model, LoadOverrides(context_length=length))
        return self.kernel.find(loaded.id)


@frozen
class Unload:
    """Unloads models."""

    kernel: Kernel

    async def on_post(self, req: Request, resp: Response) -> None:
        """Unload one, after its running requests.

        :raises ModelNotFoundError: none of that name is loaded.
        """
        name = (await read_body(req, UnloadModelBody)).instance_id
        with audited(req, "unload", name):
            if not self._is_in_memory(name):
                raise ModelNotFoundError(
                    f'No model with the instance id "{name[:200]}" is loaded.', param="instance_id"
                )
            unloaded: UnloadedModel = {"instance_id": await self.kernel.unload(name)}
        send(resp, unloaded)

    def _is_in_memory(self, name: str) -> bool:
        known = statuses(self.kernel)
        if name not in known:
            try:
                name = self.kernel.find(name).id
            except ModelNotFoundError:
                return False
        return state_of(known.get(name)) != "not-loaded"


def _model(card: ModelCard, status: ModelStatus | None) -> LocalModel:
    kind = _kind(card)
    model: LocalModel = {
        "type": kind,
        "publisher": publisher_of(card),
        "key": card.id,
        "display_name": card.id.rpartition("/")[2],
        "architecture": card.architecture,
        "quantization": _quantization(card.quantization) if card.quantization else None,
        "size_bytes": card.size_bytes,
        "params_string": parameters_of(card),
        "loaded_instances": [],
        "max_context_length": card.context_length,
        "format": card.format if card.format in ("gguf", "mlx") else None,  # type: ignore[typeddict-item]
        "description": None,
    }
    if status is not None and state_of(status) == "loaded":
        model["loaded_instances"].append({"id": card.id, "config": _config(status)})
    if kind == "llm":
        model["capabilities"] = {
            "vision": VISION in card.capabilities,
            "trained_for_tool_use": bool(TOOLS & card.capabilities),
        }
    return model


def _kind(card: ModelCard) -> ModelKind:
    return "embedding" if EMBEDDING in card.capabilities else "llm"


def _config(status: ModelStatus) -> InstanceConfig:
    return {"context_length": status.context_length, "parallel": status.parallel}


def _quantization(label: str) -> Quantization:
    match = _BITS.search(label)
    return {"name": label, "bits_per_weight": int(match[0]) if match else None}
