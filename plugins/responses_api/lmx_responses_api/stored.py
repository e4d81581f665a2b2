"""``/v1/responses/{id}``: responses that are kept."""

from __future__ import annotations

from falcon.asgi import Request, Response

from lmx_kernel.dialect.owner import owner_of
from lmx_kernel.errors import InvalidRequestError
from lmx_kernel.http.json_body import send
from lmx_kernel.interfaces import Kernel
from lmx_responses_api.items import given_items, listed, page
from lmx_responses_api.kept import Kept, find_kept
from lmx_responses_api.objects import DeletedObject, ItemList
from lmx_responses_api.query import read_query
from lmx_responses_api.replay import stream_kept
from lmx_responses_api.schema import ItemsQuery, ResponseQuery
from lmx_responses_api.settings import ResponsesSettings


class StoredResponse:
    """One response."""

    def __init__(self, kernel: Kernel, settings: ResponsesSettings) -> None:
        self._kernel = kernel
        self._settings = settings

    async def on_get(self, req: Request, resp: Response, response_id: str) -> None:
        """Show it, or stream its events from any of them on.

        :raises NotFoundError: there is none of that id that belongs to the client.
        """
        query = read_query(req, ResponseQuery)
        store = self._kernel.stored_answers
        kept = await find_kept(store, response_id, owner_of(self._kernel))
        include = query.include or ()
        if not query.stream:
            send(resp, await kept.response(store, include))
            return
        await stream_kept(
            resp,
            store,
            kept,
            heartbeat_s=self._settings.heartbeat_s,
            starting_after=query.starting_after,
            include=include,
        )

    async def on_delete(self, req: Request, resp: Response, response_id: str) -> None:
        """Forget it; one that is still computed is cancelled.

        :raises NotFoundError: there is none of that id that belongs to the client.
        """
        kept = await find_kept(self._kernel.stored_answers, response_id, owner_of(self._kernel))
        await self._kernel.stored_answers.delete(response_id, kept.answer.owner)
        gone: DeletedObject = {"id": response_id, "object": "response", "deleted": True}
        send(resp, gone)


class Cancellation:
    """Cancels responses that are computed in the background."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    async def on_post(self, req: Request, resp: Response, response_id: str) -> None:
        """Cancel one, and show what was said so far. Has no effect on a complete one.

        :raises NotFoundError: there is none of that id that belongs to the client.
        :raises InvalidRequestError: it was not made in the background.
        """
        store = self._kernel.stored_answers
        kept = await find_kept(store, response_id, owner_of(self._kernel))
        if not kept.body.background:
            raise InvalidRequestError("only a response with background: true can be cancelled")
        cancelled = await store.cancel(response_id, kept.answer.owner)
        send(resp, await Kept(cancelled, kept.body).response(store))


class InputItems:
    """What a response was made from."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    async def on_get(self, req: Request, resp: Response, response_id: str) -> None:
        """List the items of the request itself, without those of earlier responses.

        :raises NotFoundError: there is none of that id that belongs to the client.
        """
        query = read_query(req, ItemsQuery)
        kept = await find_kept(self._kernel.stored_answers, response_id, owner_of(self._kernel))
        items = list(listed(given_items(kept.body.input), response_id))
        if query.order == "desc":
            items.reverse()
        data, has_more = page(items, after=query.after, limit=query.limit)
        found: ItemList = {
            "object": "list",
            "data": data,
            "first_id": data[0]["id"] if data else None,
            "last_id": data[-1]["id"] if data else None,
            "has_more": has_more,
        }
        send(resp, found)
