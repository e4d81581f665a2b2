"""Models as a client names them."""

from __future__ import annotations

from lmx_kernel.errors import ModelUnusableError
from lmx_kernel.interfaces import Kernel
from lmx_kernel.types import ModelName


def usable_model(kernel: Kernel, name: str) -> ModelName:
    """Return the model that a client names in a path: by the name in lists that was meant, or else
    by its id.

    :raises ModelNotFoundError: there is none.
    :raises ModelUnusableError: there is, but it cannot be loaded.
    """
    card = kernel.find(name)
    if card.problem is not None:
        raise ModelUnusableError(card.problem, param="model")
    listed = {one.name.casefold(): one.name for one in kernel.model_settings.names()}
    return ModelName(name=listed.get(name.casefold(), card.id), card=card)
