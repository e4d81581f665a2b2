"""``embedString``."""

from __future__ import annotations

import asyncio
from typing import Any

from attrs import frozen
from msgspec import Struct

from lmx_kernel.interfaces import Kernel
from lmx_kernel.types import TextPrompt
from lmx_lmstudio_api.model_facts import EMBEDDING
from lmx_lmstudio_api.websocket.errors import naming_query
from lmx_lmstudio_api.websocket.models import Models, Specifier


class EmbedBody(Struct, rename="camel", frozen=True):
    """The parameter of ``embedString``."""

    model_specifier: Specifier
    input_string: str


@frozen
class Embedder:
    """Turns texts into vectors.

    :param pace: clients ask for each text of a long list by a call of its own, all at once.
    """

    kernel: Kernel
    models: Models
    pace: asyncio.Semaphore

    async def embed(self, body: EmbedBody) -> dict[str, Any]:
        """Return the vector of a text."""
        name = self.models.target(body.model_specifier, EMBEDDING)
        async with self.pace:
            with naming_query(self.kernel, name):
                found = await self.kernel.embed(name, [TextPrompt(body.input_string)])
        return {"embedding": found.vectors[0].tolist()}
