"""``/api/delete``."""

from __future__ import annotations

from attrs import frozen
from falcon.asgi import Request, Response

from lmx_kernel.dialect.audit import audited
from lmx_kernel.http.json_body import read_body
from lmx_kernel.interfaces import Kernel
from lmx_ollama_api.names import find_card, named
from lmx_ollama_api.schema import NameBody


@frozen
class Delete:
    """Deletes models from disk."""

    kernel: Kernel

    async def on_delete(self, req: Request, resp: Response) -> None:
        """Delete one; if it is loaded, it is unloaded first.

        :raises ModelNotFoundError: there is none.
        :raises ForbiddenError: it is in a folder that belongs to another program.
        """
        name = named(await read_body(req, NameBody))
        with audited(req, "delete", name):
            card = find_card(self.kernel, name)
            await self.kernel.unload(card.id)
            await self.kernel.delete(card.id)
