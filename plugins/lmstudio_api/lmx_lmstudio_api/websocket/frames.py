"""Frames of the protocol: JSON objects, each a text message of a websocket."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw, Struct

Id = Annotated[int, Meta(ge=-(2**53), le=2**53)]  # what JavaScript can count
NOTHING = Raw(b"null")


class Greeting(Struct, rename="camel", frozen=True):
    """The first message of a socket: who the client is."""

    auth_version: int
    client_identifier: Annotated[str, Meta(max_length=1024)]
    client_passkey: Annotated[str, Meta(max_length=1024)]


class ClientFrame(Struct, rename="camel", frozen=True):
    """Any other message of a client. Which fields it has depends on its type."""

    type: str
    endpoint: str = ""
    call_id: Id | None = None
    channel_id: Id | None = None
    subscribe_id: Id | None = None
    ack_id: Id | None = None
    parameter: Raw = NOTHING
    creation_parameter: Raw = NOTHING
    message: Raw = NOTHING
    warning: str = ""


def encode(frame: Mapping[str, Any]) -> str:
    """Return a frame as text."""
    return msgspec.json.encode(frame).decode()


def warning(text: str) -> str:
    """Return the frame that tells a client of a message of its own that makes no sense."""
    return encode({"type": "communicationWarning", "warning": text})
