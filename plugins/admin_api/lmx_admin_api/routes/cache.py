"""What is kept on disk of computed prompts."""

from __future__ import annotations

import attrs
from falcon.asgi import Request, Response

from lmx_admin_api.schema import CachedModel, CacheView, ClearedCache
from lmx_kernel.dialect.audit import audited
from lmx_kernel.http.json_body import send
from lmx_kernel.interfaces import Kernel
from lmx_kernel.types import PrefixUsage

PREFIX = "prefix_"


class Cache:
    """All of it."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    async def on_get(self, _req: Request, resp: Response) -> None:
        """Show it by model."""
        used = {one.model: one for one in await self._kernel.stored_prefixes.usage()}
        figures = {
            model.id: {
                name.removeprefix(PREFIX): value
                for name, value in (model.engine.details if model.engine else {}).items()
                if name.startswith(PREFIX)
            }
            for model in self._kernel.status().models
        }
        names = sorted({*used, *(model for model, found in figures.items() if found)})
        models = tuple(
            CachedModel(
                **attrs.asdict(used.get(name, PrefixUsage(model=name))),
                figures=figures.get(name, {}),
            )
            for name in names
        )
        send(resp, CacheView(size_bytes=sum(one.size_bytes for one in models), models=models))

    async def on_delete(self, req: Request, resp: Response) -> None:
        """Delete everything."""
        with audited(req, "clear_cache", "*"):
            freed_bytes = await self._kernel.stored_prefixes.clear()
        send(resp, ClearedCache(freed_bytes=freed_bytes))


class CacheOfModel:
    """What is kept for one model."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    async def on_delete(self, req: Request, resp: Response, id: str) -> None:  # noqa: A002
        """Delete it.

        :raises ModelNotFoundError: there is no such model, and nothing is kept for one.
        """
        with audited(req, "clear_cache", id):
            kept = {one.model for one in await self._kernel.stored_prefixes.usage()}
            model = id if id in kept else self._kernel.find(id).id
            freed_bytes = await self._kernel.stored_prefixes.clear(model)
        send(resp, ClearedCache(freed_bytes=freed_bytes))
