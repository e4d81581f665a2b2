"""Names of models as clients of this dialect write them: ``name``, ``name:tag``, ``hf.co/name``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from lmx_kernel.errors import InvalidRequestError, ModelNotFoundError
from lmx_kernel.interfaces import Kernel
from lmx_kernel.types import ModelCard
from lmx_ollama_api.schema import NameBody

LATEST = "latest"
_HUB = re.compile(r"(?:https?://)?(?:hf\.co|huggingface\.co)/", re.IGNORECASE)


def resolve(kernel: Kernel, name: str) -> str:
    """Return the id of the model that a client calls ``name``; where there is none, the name
    without the tag ``latest``, which may be the name of a router.

    A tag is ``latest`` or the model's quantization.
    """
    base, tag = split_tag(strip_hub(name))
    candidates = (name, base) if tag in ("", LATEST) else (name, f"{base}@{tag}")
    for candidate in candidates:
        with suppress(ModelNotFoundError):
            return kernel.find(candidate).id
    with suppress(ModelNotFoundError):
        card = kernel.find(base)
        if (card.quantization or "").casefold() == tag.casefold():
            return card.id
    return base if tag in ("", LATEST) else name


def find_card(kernel: Kernel, name: str) -> ModelCard:
    """Return the card of the model that a client calls ``name``.

    :raises ModelNotFoundError: there is none.
    """
    with known_as(name):
        return kernel.find(resolve(kernel, name))


@contextmanager
def known_as(name: str) -> Iterator[None]:
    """Let a model that is not found be an error that clients of this dialect know by its text.

    :param name: of the model, as the client wrote it.
    """
    try:
        yield
    except ModelNotFoundError:
        raise ModelNotFoundError(f"model '{name[:200]}' not found", param="model") from None


def named(body: NameBody) -> str:
    """Return the model that a body names.

    :raises InvalidRequestError: it names none.
    """
    name = body.model or body.name
    if name is None:
        raise InvalidRequestError("model: this field is required", param="model")
    return name


def strip_hub(name: str) -> str:
    """Return a name without the hub's address."""
    return _HUB.sub("", name, count=1) if _HUB.match(name) else name


def split_tag(name: str) -> tuple[str, str]:
    """Return a name and its tag; "" where it has none."""
    base, colon, tag = name.rpartition(":")
    return (base, tag) if colon and "/" not in tag else (name, "")
