"""``/admin/models``."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import attrs
from attrs import frozen
from falcon import HTTPMethodNotAllowed
from falcon.asgi import Request, Response

from lmx_admin_api.parsing import read_body, read_query
from lmx_admin_api.schema import (
    DeletedState,
    Estimate,
    EstimateBody,
    LoadBody,
    ModelBody,
    ModelInfo,
    ModelList,
    ModelsQuery,
    ModelState,
)
from lmx_kernel.dialect.audit import audited
from lmx_kernel.errors import InsufficientMemoryError, LmxError
from lmx_kernel.http.json_body import send
from lmx_kernel.interfaces import Kernel, ModelStatus
from lmx_kernel.types import Admission, LoadOverrides, ModelCard


@frozen
class Models:
    """The models on disk."""

    kernel: Kernel

    async def on_get(self, req: Request, resp: Response) -> None:
        """List them."""
        send(resp, await list_models(self.kernel, with_fit=read_query(req, ModelsQuery).fit))


@frozen
class Model:
    """One model, by its id or any other name the catalogue knows it by."""

    kernel: Kernel

    async def on_get(self, req: Request, resp: Response, id: str) -> None:  # noqa: A002
        """Show it."""
        with_fit = read_query(req, ModelsQuery).fit
        card = self.kernel.find(id)
        send(resp, await _describe(self.kernel, card, _statuses(self.kernel), with_fit=with_fit))

    async def on_delete(self, req: Request, resp: Response, id: str) -> None:  # noqa: A002
        """Delete it from disk."""
        with audited(req, "delete", id):
            deleted = await self.kernel.delete(id)
        send(resp, DeletedState(model=deleted.card.id, left=deleted.left))


@frozen
class ModelOrSettings:
    """One model, or at its path with ``/settings`` its settings: an id has slashes, so no template
    of a path can tell the two apart.
    """

    kernel: Kernel

    async def on_get(self, req: Request, resp: Response, id: str) -> None:  # noqa: A002
        """Show the model, or its settings with who has set each."""
        if (model := _settings_of(id)) is None:
            await Model(self.kernel).on_get(req, resp, id)
        else:
            send(resp, self.kernel.model_settings.show(model))

    async def on_patch(self, req: Request, resp: Response, id: str) -> None:  # noqa: A002
        """Change settings; all or none."""
        model = _settings_of(id)
        if model is None:
            raise HTTPMethodNotAllowed(["GET", "DELETE"])
        wanted: dict[str, Any] = await read_body(req, dict[str, Any])
        with audited(req, "set", f"{model} {' '.join(wanted)}".rstrip()):
            send(resp, await self.kernel.model_settings.change(model, wanted))

    async def on_delete(self, req: Request, resp: Response, id: str) -> None:  # noqa: A002
        """Delete the model from disk, or take back its settings."""
        if (model := _settings_of(id)) is None:
            await Model(self.kernel).on_delete(req, resp, id)
            return
        with audited(req, "reset", model):
            send(resp, await self.kernel.model_settings.reset(model))


@frozen
class Load:
    """Loads models.

    :ivar begun: loads that nobody waits for.
    """

    kernel: Kernel
    begun: set[asyncio.Task[ModelStatus]] = attrs.field(factory=set)

    async def on_post(self, req: Request, resp: Response) -> None:
        """Load one, or begin to."""
        body: LoadBody = await read_body(req, LoadBody)
        with audited(req, "load", body.model):
            if body.wait:
                send(resp, await self.kernel.load(body.model, body.overrides, body.backend))
                return
            admission = await self.kernel.admission(body.model, body.overrides, body.backend)
            if admission.problem is not None:
                raise InsufficientMemoryError(admission.problem)
            task = asyncio.create_task(self.kernel.load(body.model, body.overrides, body.backend))
            self.begun.add(task)
            task.add_done_callback(self._ended)
            # What is refused outright, by a model that cools down for instance, is so in the first
            # step; what goes wrong later is told as an event.
            await asyncio.sleep(0)
            if task.done():
                task.result()
            send(resp, ModelState(model=admission.model, state="loading"), 202)

    def _ended(self, task: asyncio.Task[ModelStatus]) -> None:
        self.begun.discard(task)
        if not task.cancelled():
            task.exception()  # or it would be logged as forgotten


@frozen
class Unload:
    """Unloads models."""

    kernel: Kernel

    async def on_post(self, req: Request, resp: Response) -> None:
        """Unload one."""
        body: ModelBody = await read_body(req, ModelBody)
        with audited(req, "unload", body.model):
            model = await self.kernel.unload(body.model)
        send(resp, ModelState(model=model, state="unloaded"))


@frozen
class Estimates:
    """Says what a load would take, without loading."""

    kernel: Kernel

    async def on_post(self, req: Request, resp: Response) -> None:
        """Say it."""
        body: EstimateBody = await read_body(req, EstimateBody)
        send(resp, _estimate(await self.kernel.admission(body.model, body.overrides, body.backend)))


@frozen
class RescanModels:
    """Looks at the disk."""

    kernel: Kernel

    async def on_post(self, req: Request, resp: Response) -> None:
        """Look again, now, and list what is there."""
        with audited(req, "rescan", "models"):
            await self.kernel.rescan()
        send(resp, await list_models(self.kernel, with_fit=False))


async def list_models(kernel: Kernel, *, with_fit: bool) -> ModelList:
    """Return all models.

    :param with_fit: whether to say which could be loaded now.
    """
    statuses = _statuses(kernel)
    infos = [_describe(kernel, card, statuses, with_fit=with_fit) for card in kernel.models()]
    return ModelList(models=tuple(await asyncio.gather(*infos)))


def _settings_of(path: str) -> str | None:
    """Return the model whose settings a path is for; None for the path of a model."""
    model, slash, last = path.rpartition("/")
    return model if slash and last == "settings" else None


def _statuses(kernel: Kernel) -> Mapping[str, ModelStatus]:
    return {status.id: status for status in kernel.model_statuses()}


async def _describe(
    kernel: Kernel, card: ModelCard, statuses: Mapping[str, ModelStatus], *, with_fit: bool
) -> ModelInfo:
    estimate, problem = None, card.problem
    if with_fit and problem is None:
        try:
            estimate = _estimate(await kernel.admission(card.id, LoadOverrides(), card.backend))
            problem = estimate.problem
        except LmxError as error:  # it went, or broke, since the disk was looked at
            problem = error.message
    return ModelInfo(
        id=card.id,
        backend=card.backend,
        format=card.format,
        architecture=card.architecture,
        size_bytes=card.size_bytes,
        context_length=card.context_length,
        quantization=card.quantization,
        capabilities=tuple(sorted(card.capabilities)),
        problem=problem,
        warning=card.warning,
        aliases=card.aliases,
        fits=problem is None if with_fit else None,
        estimate=estimate,
        status=statuses.get(card.id),
    )


def _estimate(admission: Admission) -> Estimate:
    return Estimate(
        **attrs.asdict(admission, recurse=False),
        fits=admission.problem is None,
        needed_bytes=admission.estimate.total_bytes,
    )
