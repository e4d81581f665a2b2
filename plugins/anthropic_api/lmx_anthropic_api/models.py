"""``/v1/models``, for requests with the header of this dialect."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from falcon.asgi import Request, Response

from lmx_anthropic_api.objects import ModelObject, ModelPage
from lmx_kernel.dialect.models import usable_model
from lmx_kernel.errors import InvalidRequestError
from lmx_kernel.http.json_body import send
from lmx_kernel.interfaces import Kernel
from lmx_kernel.types import ModelCard, ModelName

LIMIT, MAX_LIMIT = 20, 1000
# The dialect demands a date; cards have none, and looking at the disk for one is not worth it.
_CREATED = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Models:
    """The models that can be asked."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    async def on_get(self, req: Request, resp: Response) -> None:
        """List a page of them: at most ``limit``, those after ``after_id`` or before ``before_id``.

        :raises InvalidRequestError: the limit is no number from 1 to 1000, or an id is unknown.
        """
        names = self._kernel.model_settings.names()
        limit = _limit(req)
        after, before = req.get_param("after_id"), req.get_param("before_id")
        if before:
            rest = names[: _position(names, "before_id", before)]
            page = rest[-limit:]
        else:
            rest = names[_position(names, "after_id", after) + 1 :] if after else names
            page = rest[:limit]
        data = [_model(one.card, one.name) for one in page]
        first, last = (data[0].id, data[-1].id) if data else (None, None)
        send(resp, ModelPage(data, len(rest) > len(page), first, last))


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


def _limit(req: Request) -> int:
    given = req.get_param("limit") or str(LIMIT)
    if not (given.isascii() and given.isdigit() and 1 <= int(given[:5]) <= MAX_LIMIT):
        raise InvalidRequestError(f"limit: a number from 1 to {MAX_LIMIT}", param="limit")
    return int(given)


def _position(names: Sequence[ModelName], param: str, model_id: str) -> int:
    position = next((index for index, one in enumerate(names) if one.name == model_id), None)
    if position is None:
        raise InvalidRequestError(f"{param}: there is no model {model_id!r}", param=param)
    return position


def _model(card: ModelCard, name: str) -> ModelObject:
    return ModelObject(name, name, _CREATED, card.context_length)
