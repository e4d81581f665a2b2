"""Requests, events and usage to the bytes that are kept of them, and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from lmx_kernel.types import Event, GenerationRequest, Usage
from lmx_kernel.types.plain_data import make_converter

_EVENTS: Any = tuple[Event, ...]
_converter = make_converter()
_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder().decode


def pack_request(request: GenerationRequest) -> bytes:
    """Return a request as msgpack."""
    return _pack(_converter.unstructure(request))


def unpack_request(data: bytes) -> GenerationRequest:
    """Return the request in ``data``."""
    return _converter.structure(_unpack(data), GenerationRequest)


def pack_events(events: Sequence[Event]) -> bytes:
    """Return events as msgpack."""
    return _pack(_converter.unstructure(tuple(events), unstructure_as=_EVENTS))


def unpack_events(data: bytes) -> tuple[Event, ...]:
    """Return the events in ``data``."""
    events: tuple[Event, ...] = _converter.structure(_unpack(data), _EVENTS)
    return events


def pack_usage(usage: Usage | None) -> bytes | None:
    """Return usage as msgpack."""
    return None if usage is None else _pack(_converter.unstructure(usage))


def unpack_usage(data: bytes | None) -> Usage | None:
    """Return the usage in ``data``."""
    return None if data is None else _converter.structure(_unpack(data), Usage)
