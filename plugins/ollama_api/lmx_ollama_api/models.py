"""``/api/tags``, ``/api/ps``, ``/api/show`` and ``/api/version``."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

from attrs import frozen
from falcon.asgi import Request, Response

from lmx_kernel.errors import ModelNotFoundError
from lmx_kernel.http.json_body import read_body, send
from lmx_kernel.interfaces import Kernel
from lmx_kernel.types import ModelCard
from lmx_ollama_api.details import model_object, running_model, shown_model
from lmx_ollama_api.names import find_card, named
from lmx_ollama_api.schema import NameBody

# Clients refuse servers of a version that lacks what they use, so this is not LMX's own.
API_VERSION = "0.12.6"


class Version:
    """Tells which API this is."""

    async def on_get(self, req: Request, resp: Response) -> None:
        """Tell it."""
        send(resp, {"version": API_VERSION})

    on_head = on_get


@frozen
class Tags:
    """The models that can be asked."""

    kernel: Kernel

    async def on_get(self, req: Request, resp: Response) -> None:
        """List them."""
        names = self.kernel.model_settings.names()
        models = await asyncio.gather(*(model_object(one.card, one.name) for one in names))
        send(resp, {"models": models})

    on_head = on_get


@frozen
class Running:
    """The models that are loaded."""

    kernel: Kernel

    async def on_get(self, req: Request, resp: Response) -> None:
        """List them."""
        now, models = time.time(), []
        for status in self.kernel.model_statuses():
            if status.state in ("ready", "draining"):
                with suppress(ModelNotFoundError):  # its files may be gone by now
                    models.append(running_model(self.kernel.find(status.id), status, now))
        send(resp, {"models": models})


@frozen
class Show:
    """One model."""

    kernel: Kernel

    async def on_post(self, req: Request, resp: Response) -> None:
        """Show it.

        :raises ModelNotFoundError: there is none.
        """
        card = find_card(self.kernel, named(await read_body(req, NameBody)))
        send(resp, await shown_model(card, self._context_length(card)))

    def _context_length(self, card: ModelCard) -> int:
        """Return the tokens that a request may use: of the load that is, or that would be."""
        for status in self.kernel.model_statuses():
            if status.id == card.id and status.state == "ready":
                return status.context_length
        wanted = self.kernel.model_settings.show(card.id).settings["context_length"].value
        return min(wanted, card.context_length)
