"""Models and loaded models as LM Studio's SDKs and its command line describe them.

All fields that any SDK requires are there; clients drop a frame that lacks one, and wait forever.
A field that they take for optional is left out where it has no value, since they take no null.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from lmx_kernel.types import ModelCard
from lmx_lmstudio_api.model_facts import EMBEDDING, TOOLS, VISION, parameters_of, publisher_of

if TYPE_CHECKING:
    from lmx_kernel.interfaces import ModelStatus

LLM = "llm"
_FORMATS = frozenset({"gguf", "safetensors", "onnx", "ggml"})
_OTHER_FORMAT = "safetensors"  # clients know neither mlx nor what a plugin may bring
_BITS = re.compile(r"\d{1,2}")  # as in Q4_K_M, BF16 and 4bit


def kind_of(card: ModelCard) -> str:
    """Return what a model is for: ``llm`` or ``embedding``."""
    return EMBEDDING if EMBEDDING in card.capabilities else LLM


def model_info(card: ModelCard) -> dict[str, Any]:
    """Return what clients are told of a model on disk."""
    kind = kind_of(card)
    info: dict[str, Any] = {
        "type": kind,
        "modelKey": card.id,
        "format": card.format if card.format in _FORMATS else _OTHER_FORMAT,
        "displayName": card.id.rpartition("/")[2],
        "publisher": publisher_of(card),
        "path": card.id,
        "indexedModelIdentifier": card.id,
        "deviceIdentifier": None,
        "sizeBytes": card.size_bytes,
        "architecture": card.architecture,
        "maxContextLength": card.context_length,
    }
    if parameters := parameters_of(card):
        info["paramsString"] = parameters
    if card.quantization and (bits := _BITS.search(card.quantization)):
        info["quantization"] = {"name": card.quantization, "bits": int(bits[0])}
    if kind == LLM:
        info["vision"] = VISION in card.capabilities
        info["trainedForToolUse"] = bool(TOOLS & card.capabilities)
    return info


def instance_info(card: ModelCard, status: ModelStatus | None, name: str) -> dict[str, Any]:
    """Return what clients are told of a loaded model.

    :param status: None if it is not loaded any more.
    :param name: by which the client may ask for it from now on.
    """
    ttl_s = status.ttl_s if status else None
    return model_info(card) | {
        "identifier": name,
        "instanceReference": name,
        "contextLength": status.context_length if status else card.context_length,
        "ttlMs": None if ttl_s is None else round(ttl_s * 1000),
        "lastUsedTime": None,
    }


def load_config(card: ModelCard, status: ModelStatus | None) -> dict[str, Any]:
    """Return how a model is loaded."""
    length = status.context_length if status else card.context_length
    fields = [{"key": f"{kind_of(card)}.load.contextLength", "value": length}]
    if status is not None and kind_of(card) == LLM:
        fields.append({"key": "llm.load.numParallelSessions", "value": status.parallel})
    return {"fields": fields}
