"""A client of the websocket protocol."""

from __future__ import annotations

import itertools
import json
from typing import Any

from attrs import define, field
from websockets.asyncio.client import ClientConnection

GREETING = {"authVersion": 1, "clientIdentifier": "me", "clientPasskey": "x"}


@define
class SdkSocket:
    """A socket after the greeting."""

    ws: ClientConnection
    ids: Any = field(factory=lambda: itertools.count(1))

    async def send(self, **frame: Any) -> None:
        await self.ws.send(json.dumps(frame))

    async def receive(self) -> dict[str, Any]:
        return json.loads(await self.ws.recv())

    async def greet(self, **fields: Any) -> dict[str, Any]:
        await self.send(**GREETING | fields)
        return await self.receive()

    async def call(self, endpoint: str, **parameter: Any) -> dict[str, Any]:
        """Return the frame that answers a call."""
        call_id = next(self.ids)
        await self.send(type="rpcCall", endpoint=endpoint, callId=call_id, parameter=parameter)
        frame = await self.receive()
        assert frame.pop("callId") == call_id
        return frame

    async def result(self, endpoint: str, **parameter: Any) -> Any:
        frame = await self.call(endpoint, **parameter)
        assert frame["type"] == "rpcResult", frame
        return frame.get("result")

    async def open(self, endpoint: str, **parameter: Any) -> int:
        channel_id = next(self.ids)
        await self.send(
            type="channelCreate",
            endpoint=endpoint,
            channelId=channel_id,
            creationParameter=parameter,
        )
        return channel_id

    async def cancel(self, channel_id: int, kind: str = "cancel") -> None:
        await self.send(type="channelSend", channelId=channel_id, message={"type": kind})

    async def rest(self, channel_id: int) -> list[dict[str, Any]]:
        """Return the messages of a channel; the last one is its error, if it has one."""
        messages = []
        while True:
            frame = await self.receive()
            assert frame["channelId"] == channel_id
            if frame["type"] == "channelClose":
                return messages
            if frame["type"] == "channelError":
                return [*messages, frame["error"]]
            messages.append(frame["message"])

    async def channel(self, endpoint: str, **parameter: Any) -> list[dict[str, Any]]:
        return await self.rest(await self.open(endpoint, **parameter))

    async def predict(self, text: str = "Hi", *fields: dict[str, Any], **more: Any) -> list[Any]:
        return await self.channel("predict", **prediction(text, *fields, **more))


def stack(*fields: dict[str, Any], layer: str = "apiOverride") -> dict[str, Any]:
    """Return a config of one layer."""
    return {"layers": [{"layerName": layer, "config": {"fields": list(fields)}}]}


def value(key: str, value: Any) -> dict[str, Any]:
    """Return a key of a config."""
    return {"key": key, "value": value}


def query(name: str | None) -> dict[str, Any]:
    """Return a specifier."""
    return {"type": "query", "query": {} if name is None else {"identifier": name}}


def prediction(text: str = "Hi", *fields: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Return what a channel ``predict`` is created with."""
    turn = {"role": "user", "content": [{"type": "text", "text": text}]}
    found = {
        "modelSpecifier": query("acme/Tiny-1B"),
        "history": {"messages": [turn]},
        "predictionConfigStack": stack(*fields),
    }
    return found | more
