"""The conversation that a request goes on with: its own items after those of kept responses."""

from __future__ import annotations

from typing import Any

from attrs import define, field

from lmx_kernel.dialect.fields import JsonObject
from lmx_kernel.errors import InvalidRequestError, NotFoundError
from lmx_kernel.interfaces import Kernel
from lmx_responses_api.errors import PreviousResponseNotFoundError
from lmx_responses_api.ids import ItemPlace, find_place
from lmx_responses_api.items import REFERENCE, Item, given_items, parse_item
from lmx_responses_api.kept import Kept, find_kept
from lmx_responses_api.schema import ResponseBody
from lmx_responses_api.turns import PlacedItem

MAX_RESPONSES = 1024
_CALLS = frozenset({"function_call", "custom_tool_call"})
_PREVIOUS = "previous_response_id"


@define
class History:
    """The kept responses of one client.

    :param owner: the name of its key.
    """

    kernel: Kernel
    owner: str
    _outputs: dict[str, list[JsonObject]] = field(factory=dict)

    async def items(self, body: ResponseBody) -> list[PlacedItem]:
        """Return all items of the conversation of ``body``, oldest first. The instructions of
        earlier responses are not among them.

        :raises PreviousResponseNotFoundError: an earlier response is not kept.
        :raises InvalidRequestError: it is not complete yet, or an item is wrong.
        """
        items: list[PlacedItem] = []
        for kept in reversed(await self._earlier(body)):
            given = given_items(kept.body.input)
            for item in [*given, *filter(_is_whole, await self._output(kept))]:
                items.append((_PREVIOUS, await self._resolved(_PREVIOUS, item)))
        for index, item in enumerate(given_items(body.input)):
            where = f"input[{index}]"
            items.append((where, await self._resolved(where, item)))
        return items

    async def _earlier(self, body: ResponseBody) -> list[Kept]:
        """Return the responses that ``body`` goes on from, newest first."""
        found: list[Kept] = []
        wanted = body.previous_response_id
        while wanted:
            if len(found) == MAX_RESPONSES:
                raise InvalidRequestError(f"{_PREVIOUS}: too many responses", param=_PREVIOUS)
            found.append(await self._find(wanted))
            wanted = found[-1].body.previous_response_id
        return found

    async def _find(self, response_id: str) -> Kept:
        try:
            kept = await find_kept(self.kernel.stored_answers, response_id, self.owner)
        except NotFoundError:
            raise PreviousResponseNotFoundError(
                f"Previous response with id '{response_id}' not found.", param=_PREVIOUS
            ) from None
        if kept.answer.outcome is None:
            raise InvalidRequestError(f"{response_id} is not complete yet", param=_PREVIOUS)
        return kept

    async def _output(self, kept: Kept) -> list[JsonObject]:
        """Return what the model said."""
        found = self._outputs.get(kept.answer.id)
        if found is None:
            response = await kept.response(self.kernel.stored_answers)
            found = [dict[str, Any](item) for item in response["output"]]
            self._outputs[kept.answer.id] = found
        return found

    async def _resolved(self, where: str, item: JsonObject) -> Item:
        if item["type"] == REFERENCE:
            item = await self._referred(where, str(item.get("id")))
        return parse_item(where, item)

    async def _referred(self, where: str, item_id: str) -> JsonObject:
        """Return the item of a kept response."""
        place = find_place(item_id)
        try:
            items = await self._items_at(place) if place else []
        except NotFoundError:
            items = []
        if place is None or place.index >= len(items):
            raise InvalidRequestError(f"{where}.id: there is no item {item_id!r}", param=where)
        found = items[place.index]
        if found["type"] == REFERENCE:
            raise InvalidRequestError(f"{where}.id: {item_id!r} is a reference", param=where)
        return found

    async def _items_at(self, place: ItemPlace) -> list[JsonObject]:
        kept = await find_kept(self.kernel.stored_answers, place.response_id, self.owner)
        if place.is_input:
            return given_items(kept.body.input)
        return await self._output(kept)


def _is_whole(item: JsonObject) -> bool:
    """Return whether an item can be answered: no call that the model did not finish."""
    return item["type"] not in _CALLS or item["status"] == "completed"
