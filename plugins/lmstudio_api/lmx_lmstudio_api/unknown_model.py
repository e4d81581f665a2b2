"""The error of an unknown model, with the list of models that clients show their users."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from lmx_kernel.errors import ModelNotFoundError
from lmx_kernel.interfaces import Kernel

MAX_LISTED = 100
_SHOWN_CHARS = 200


@contextmanager
def naming_models(kernel: Kernel, name: str) -> Iterator[None]:
    """Word the error of an unknown model as this API does.

    :param name: as the client wrote it.
    :raises ModelNotFoundError: there is none of that name; the message lists the models there are.
    """
    try:
        yield
    except ModelNotFoundError:
        raise ModelNotFoundError(_text(kernel, name), param="model") from None


def _text(kernel: Kernel, name: str) -> str:
    ids = [card.id for card in kernel.models() if card.problem is None]
    listed = "\n".join(ids[:MAX_LISTED])
    return (
        f'Model "{name[:_SHOWN_CHARS]}" not found. Please specify a valid model.\n\n'
        f"Your models:\n\n{listed}"
    )
