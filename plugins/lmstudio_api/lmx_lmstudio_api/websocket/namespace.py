"""The calls and channels of one namespace."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Generic, TypeVar

from attrs import field, frozen

from lmx_lmstudio_api.websocket.channel import Channel

P = TypeVar("P")


@frozen
class Rpc(Generic[P]):
    """A call with one result.

    :param parameter: the class that the parameter is parsed into; None for a call without one.
    :param call: returns the result; None for a call without one.
    :param http_path: returns the path that does the same by HTTP, if it needs another scope than
        the socket: the client's key must be good for it, too.
    """

    parameter: type[P] | None
    call: Callable[[P], Awaitable[Any]]
    http_path: Callable[[], str] = str


@frozen
class ChannelKind(Generic[P]):
    """A call with any number of messages in both directions.

    :param parameter: as of :class:`Rpc`.
    :param run: sends all messages but the last one, and returns that: clients wait forever for a
        channel that is closed without it. None for channels that just end.
    :param http_path: as of :class:`Rpc`.
    :param is_endless: it runs until the client closes it.
    """

    parameter: type[P] | None
    run: Callable[[Channel, P], Awaitable[Mapping[str, Any] | None]]
    http_path: Callable[[], str] = str
    is_endless: bool = False


@frozen
class Namespace:
    """What clients may ask for at one path."""

    path: str
    rpcs: Mapping[str, Rpc[Any]] = field(factory=dict)
    channels: Mapping[str, ChannelKind[Any]] = field(factory=dict)
