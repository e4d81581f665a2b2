"""One socket: the greeting, then calls and channels until it is closed."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any

import structlog
from attrs import define, field

from lmx_kernel.errors import InvalidRequestError, LmxError, NotFoundError
from lmx_kernel.http.json_body import parse
from lmx_kernel.interfaces import REFUSED, WebSocket
from lmx_lmstudio_api.websocket.channel import ENDS, Channel
from lmx_lmstudio_api.websocket.errors import error_object
from lmx_lmstudio_api.websocket.frames import ClientFrame, Greeting, encode, warning
from lmx_lmstudio_api.websocket.namespace import ChannelKind, Namespace, Rpc

VERSION = 1
MAX_CHANNELS = 240
"""Of one socket: fewer than it may have calls. If a channel had to wait for another one to end, a
message that ends one could not be read.
"""

_SHOWN_CHARS = 1000
_TOKEN = re.compile(r"[A-Za-z0-9]{8}:[A-Za-z0-9]{20}")
log = structlog.get_logger("lmx.lmstudio")


@define
class Session:
    """Serves one socket of a namespace."""

    socket: WebSocket
    namespace: Namespace
    _channels: dict[int, Channel] = field(factory=dict, init=False)

    async def run(self) -> None:
        """Serve it until it is closed."""
        if not await self._greet():
            return
        async for message in self.socket:
            try:
                await self._take(_frame(message))
            except InvalidRequestError as error:
                await self.socket.send(warning(error.message))

    async def _greet(self) -> bool:
        message = await self.socket.receive()
        if message is None:
            return False
        try:
            greeting = _parsed(message, Greeting)
            if greeting.auth_version != VERSION:
                raise InvalidRequestError(f"authVersion: only {VERSION} is served")
            if not self.socket.is_authorised:
                await self.socket.authorise(token_of(greeting))
        except LmxError as error:
            await self.socket.send(encode({"success": False, "error": error.message}))
            await self.socket.close(REFUSED, "refused")
            return False
        await self.socket.send(encode({"success": True}))
        return True

    async def _take(self, frame: ClientFrame) -> None:
        """Do what a frame asks for, or begin it.

        :raises InvalidRequestError: it makes no sense.
        """
        match frame.type:
            case "rpcCall":
                await self._call(frame)
            case "channelCreate":
                await self._open(frame)
            case "channelSend":
                await self._receive(frame)
            case "communicationWarning":  # only a frame of ours that is wrong makes clients say so
                log.error(
                    "lmstudio_frame_rejected",
                    namespace=self.namespace.path,
                    warning=frame.warning[:_SHOWN_CHARS],
                )
            case "keepAlive":
                await self.socket.send(encode({"type": "keepAliveAck"}))
            case "signalSubscribe" | "writableSignalSubscribe":
                await self._refuse_signal(frame)
            case "channelAck" | "signalUnsubscribe" | "writableSignalUnsubscribe":
                pass
            case _:
                raise InvalidRequestError(f"unknown type {frame.type[:_SHOWN_CHARS]!r}")

    # --- calls ---

    async def _call(self, frame: ClientFrame) -> None:
        call_id = _required("callId", frame.call_id)

        async def failed(error: LmxError) -> None:
            found = {"type": "rpcError", "callId": call_id, "error": error_object(error)}
            await self.socket.send(encode(found))

        rpc = self.namespace.rpcs.get(frame.endpoint)
        if rpc is None:
            await failed(self._unknown(frame))
            return
        await self.socket.start(frame.endpoint, self._answer(rpc, frame, call_id), failed)

    async def _answer(self, rpc: Rpc[Any], frame: ClientFrame, call_id: int) -> None:
        await self._check(rpc)
        result = await rpc.call(_parameter(bytes(frame.parameter), rpc.parameter))
        found = {"type": "rpcResult", "callId": call_id}
        if result is not None:
            found["result"] = result
        await self.socket.send(encode(found))

    # --- channels ---

    async def _open(self, frame: ClientFrame) -> None:
        channel_id = _required("channelId", frame.channel_id)
        if channel_id in self._channels:
            raise InvalidRequestError(f"channelId: {channel_id} is open already")
        channel = Channel(channel_id, self.socket)
        kind = self.namespace.channels.get(frame.endpoint)
        if kind is None:
            await channel.fail(error_object(self._unknown(frame)))
            return
        if len(self._channels) >= MAX_CHANNELS:
            error = InvalidRequestError(f"a socket has at most {MAX_CHANNELS} open channels")
            await channel.fail(error_object(error))
            return
        self._channels[channel_id] = channel
        await self.socket.start(
            frame.endpoint,
            self._run(kind, channel, channel_id, bytes(frame.creation_parameter)),
            self._failing(channel, channel_id),
            is_endless=kind.is_endless,
        )

    async def _run(
        self, kind: ChannelKind[Any], channel: Channel, channel_id: int, parameter: bytes
    ) -> None:
        try:
            await self._check(kind)
            last = await kind.run(channel, _parameter(parameter, kind.parameter))
            if last is not None:
                await channel.send(last)
            await channel.close()
        finally:
            self._channels.pop(channel_id, None)

    def _failing(self, channel: Channel, channel_id: int) -> Callable[[LmxError], Awaitable[None]]:
        async def failed(error: LmxError) -> None:
            self._channels.pop(channel_id, None)
            await channel.fail(error_object(error))

        return failed

    async def _receive(self, frame: ClientFrame) -> None:
        channel_id = _required("channelId", frame.channel_id)
        message = parse(bytes(frame.message), ClientFrame)
        channel = self._channels.get(channel_id)
        if channel is None:
            return  # it has ended, which the client does not know yet
        if frame.ack_id is not None:
            ack = {"type": "channelAck", "channelId": channel_id, "ackId": frame.ack_id}
            await self.socket.send(encode(ack))
        if message.type not in ENDS:
            raise InvalidRequestError(f"message.type: unknown {message.type[:_SHOWN_CHARS]!r}")
        channel.cancel()

    # --- refusals ---

    async def _check(self, asked: Rpc[Any] | ChannelKind[Any]) -> None:
        if path := asked.http_path():
            await self.socket.check_path(path)

    async def _refuse_signal(self, frame: ClientFrame) -> None:
        subscribe_id = _required("subscribeId", frame.subscribe_id)
        kind = "signalError" if frame.type == "signalSubscribe" else "writableSignalError"
        error = error_object(self._unknown(frame))
        await self.socket.send(encode({"type": kind, "subscribeId": subscribe_id, "error": error}))

    def _unknown(self, frame: ClientFrame) -> NotFoundError:
        endpoint = frame.endpoint[:_SHOWN_CHARS]
        return NotFoundError(f"{self.namespace.path} has no endpoint {endpoint!r} here")


def token_of(greeting: Greeting) -> str:
    """Return the API key in a greeting. Clients cut a key of the form ``sk-lm-NAME:SECRET`` in two,
    and make both parts up if they have none.
    """
    both = f"{greeting.client_identifier.removeprefix('guest:')}:{greeting.client_passkey}"
    return f"sk-lm-{both}" if _TOKEN.fullmatch(both) else greeting.client_passkey


def _frame(message: str | bytes) -> ClientFrame:
    return _parsed(message, ClientFrame)


def _parsed(message: str | bytes, cls: type[Any]) -> Any:
    """Return a message as a ``cls``.

    :raises InvalidRequestError: it is not.
    """
    if isinstance(message, bytes):
        raise InvalidRequestError("messages are text: JSON, not binary")
    return parse(message.encode(errors="replace"), cls)


def _parameter(data: bytes, cls: type[Any] | None) -> Any:
    return None if cls is None else parse(data, cls)


def _required(name: str, value: int | None) -> int:
    if value is None:
        raise InvalidRequestError(f"{name}: this field is required", param=name)
    return value
