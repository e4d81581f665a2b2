"""``/v1/models``."""

from __future__ import annotations

import time

from falcon.asgi import Request, Response

from lmx_kernel.dialect.models import usable_model
from lmx_kernel.http.json_body import send
from lmx_kernel.interfaces import Kernel
from lmx_kernel.runtime.settings import ModelSettings
from lmx_kernel.types import ModelCard
from lmx_openai_api.objects import ModelObject
from lmx_openai_api.settings import OpenAISettings

# The dialect demands a date; cards have none, and looking at the disk for one is not worth it.
_CREATED = int(time.time())
_IN_MEMORY = ("loading", "ready", "draining")


class Models:
    """The models that can be asked."""

    def __init__(self, kernel: Kernel, settings: OpenAISettings) -> None:
        self._kernel = kernel
        self._settings = settings

    async def on_get(self, req: Request, resp: Response) -> None:
        """List them."""
        names = self._kernel.model_settings.names()
        if self._settings.list_by_jit and not self._kernel.settings(ModelSettings).jit:
            loaded = {one.id for one in self._kernel.model_statuses() if one.state in _IN_MEMORY}
            names = [one for one in names if one.card.id in loaded]
        send(resp, {"object": "list", "data": [_model(one.card, one.name) for one in names]})


class Model:
    """One model, by its id or any other name the catalogue knows it by."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    async def on_get(self, req: Request, resp: Response, name: str) -> None:
        """Show it.

        :raises ModelNotFoundError: there is none.
        :raises ModelUnusableError: there is, but it cannot be loaded.
        """
        found = usable_model(self._kernel, name)
        send(resp, _model(found.card, found.name))


def _model(card: ModelCard, name: str) -> ModelObject:
    publisher, slash, _ = card.id.partition("/")
    return {
        "id": name,
        "object": "model",
        "created": _CREATED,
        "owned_by": publisher if slash else "lmx",
    }
