"""What is known of a model, as this dialect tells it."""

from __future__ import annotations

import asyncio
import hashlib
import re
from datetime import UTC, datetime

from lmx_kernel.interfaces import ModelStatus
from lmx_kernel.types import ModelCard
from lmx_ollama_api.keep_alive import MAX_S
from lmx_ollama_api.objects import Details, ModelObject, RunningModel, ShownModel
from lmx_ollama_api.rendering import rfc3339

_SIZE = re.compile(r"(?<![A-Za-z0-9.])(?:\d+x)?\d+(?:\.\d+)?[bBmM](?![A-Za-z0-9])")


async def model_object(card: ModelCard, name: str) -> ModelObject:
    """Return a model of the list of models, by one of its names."""
    return {
        "name": name,
        "model": name,
        "modified_at": await _modified_at(card),
        "size": card.size_bytes,
        "digest": digest(f"{card.id}\n{card.size_bytes}"),
        "details": _details(card),
    }


def running_model(card: ModelCard, status: ModelStatus, now: float) -> RunningModel:
    """Return a model of the list of loaded models.

    :param now: in seconds since the epoch.
    """
    rest_s = status.ttl_s if status.expires_in_s is None else status.expires_in_s
    expires_at = now + min(MAX_S if rest_s is None else rest_s, MAX_S)
    return {
        "name": card.id,
        "model": card.id,
        "size": status.memory_bytes,
        "size_vram": 0,
        "digest": digest(f"{card.id}\n{card.size_bytes}"),
        "details": _details(card),
        "expires_at": rfc3339(datetime.fromtimestamp(expires_at, UTC)),
        "context_length": status.context_length,
    }


async def shown_model(card: ModelCard, context_length: int) -> ShownModel:
    """Return a model with all that is known of it.

    :param context_length: of a request now.
    """
    return {
        "modelfile": "",
        "parameters": f"num_ctx {context_length}",
        "template": "",
        "details": _details(card),
        "model_info": {
            "general.architecture": card.architecture,
            f"{card.architecture}.context_length": card.context_length,
        },
        "capabilities": capabilities(card),
        "modified_at": await _modified_at(card),
    }


def capabilities(card: ModelCard) -> list[str]:
    """Return what a model can do, in the words of this dialect."""
    if "embedding" in card.capabilities:
        return ["embedding"]
    found = ["completion"]
    # Backends that say nothing of their models may have some that chat.
    if "chat" in card.capabilities or not card.capabilities:
        found.append("tools")
    return found + sorted(card.capabilities & {"thinking"})


def digest(text: str) -> str:
    """Return what stands for the hash of a model's files, which would take minutes to compute."""
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()


def _details(card: ModelCard) -> Details:
    size = _SIZE.search(card.id)
    return {
        "parent_model": "",
        "format": card.format,
        "family": card.architecture,
        "families": [card.architecture],
        "parameter_size": size[0].upper() if size else "",
        "quantization_level": card.quantization or "",
    }


async def _modified_at(card: ModelCard) -> str:
    try:
        status = await asyncio.to_thread(card.path.stat)
    except OSError:  # it went since the disk was scanned
        return rfc3339(datetime.fromtimestamp(0, UTC))
    return rfc3339(datetime.fromtimestamp(status.st_mtime, UTC))
