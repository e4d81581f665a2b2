"""Every message between the kernel and a worker, as one tagged union, and its bytes.

A frame is a 4-byte little-endian length and that many bytes of msgpack.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import msgspec
from attrs import field, frozen
from cattrs import Converter
from cattrs.strategies import configure_tagged_union

from lmx_kernel.engine.protocol import EngineStats
from lmx_kernel.errors import LmxError, from_code
from lmx_kernel.types import EncodedPrompt, EngineLimits, EngineSpec, Event, GenerationRequest
from lmx_kernel.types.plain_data import make_converter

# --- kernel to worker ----------------------------------------------------------------------------


@frozen
class Open:
    """Load the model. Always the first message, unless :class:`Measure` is."""

    spec: EngineSpec


@frozen
class Measure:
    """Say exactly what loading would take, and end."""

    spec: EngineSpec


@frozen
class Prepare:
    """Turn a request into tokens and check it. Answered by Prepared or Refused."""

    id: int
    request: GenerationRequest


@frozen
class Start:
    """Run one candidate of a prepared request, going on after ``tokens``."""

    id: int
    candidate: int
    seed: int
    tokens: tuple[int, ...] = ()


@frozen
class Drop:
    """Forget a request and stop all that runs for it."""

    id: int


@frozen
class Trim:
    """Give back the memory that only serves later requests."""


@frozen
class End:
    """Write what is to outlive the worker, and end. Nothing is answered."""


@frozen
class Ping:
    """Answered by Beat at once, and by Pong when the loop comes round to it."""


# --- worker to kernel ----------------------------------------------------------------------------


@frozen
class Loading:
    """The share of the load that is done, 0..1, and what comes next."""

    share: float
    doing: str = ""


@frozen
class Opened:
    """The model is ready."""

    limits: EngineLimits


@frozen
class Measured:
    """The exact bytes, or None where the backend cannot tell."""

    memory_bytes: int | None


@frozen
class LoadRefused:
    """The model could not be opened; the worker ends."""

    code: str
    message: str


@frozen
class Prepared:
    """A request passed every check.

    :param prompt: what the model would read, where the request asked for it.
    :param fingerprint: see :class:`lmx_kernel.types.Admitted`.
    """

    id: int
    prompt_tokens: int
    prompt: EncodedPrompt | None = None
    fingerprint: str = ""


@frozen
class Refused:
    """A request failed a check."""

    id: int
    code: str
    message: str
    param: str | None = None
    figures: dict[str, int] = field(factory=dict)

    @property
    def error(self) -> LmxError:
        """The error that the check found."""
        return from_code(self.code, self.message, self.param, self.figures)


@frozen
class Preempted:
    """A candidate was put out since the cache ran full; it may be started again."""

    candidate: int


@frozen
class Failed:
    """The engine gave up a candidate."""

    candidate: int
    message: str


@frozen
class Drafted:
    """How many drafts of a candidate were computed in one step, and how many were right.

    :param model: whose they were; "" where no model made them.
    """

    candidate: int
    drafted: int
    accepted: int
    model: str = ""


Given = Event | Drafted | Preempted | Failed
"""What a candidate gives in one step."""


@frozen
class Routed:
    """All that one candidate of a request gave in one step. It is taken as a whole or not at all:
    a token and what it says must not be separated.
    """

    id: int
    events: tuple[Given, ...]


@frozen
class Stepped:
    """All that one engine step gave; empty if only time passed."""

    routed: tuple[Routed, ...] = field(factory=tuple)


@frozen
class Observed:
    """The engine's own figures, at most once a second while it works."""

    stats: EngineStats


@frozen
class Warned:
    """Something that an operator should know, as a sentence."""

    text: str


@frozen
class Beat:
    """How far the engine is within a call; see :class:`lmx_kernel.engine.protocol.LongSteps`.
    Sent by another thread than the one that may be in such a call, so it proves little by itself.
    """

    pulse: int | None


@frozen
class Pong:
    """The loop is alive."""


Message = (
    Open
    | Measure
    | Prepare
    | Start
    | Drop
    | Trim
    | End
    | Ping
    | Loading
    | Opened
    | Measured
    | LoadRefused
    | Prepared
    | Refused
    | Stepped
    | Observed
    | Warned
    | Beat
    | Pong
)

_LENGTH = struct.Struct("<I")
HEADER_BYTES = _LENGTH.size


def _make_converter() -> Converter:
    converter = make_converter(omit_defaults=True)
    converter.register_unstructure_hook(Path, str)
    converter.register_structure_hook(Path, lambda value, _: Path(value))
    for union in (Given, Message):
        configure_tagged_union(union, converter, tag_name="")
    # What each token passes through; the general code for tuples takes a third longer.
    given: Any = Given
    event = converter.get_structure_hook(given)
    converter.register_structure_hook_func(
        lambda kind: kind == tuple[given, ...],
        lambda values, _: tuple([event(value, given) for value in values]),
    )
    return converter


_converter = _make_converter()
_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder().decode


def encode(message: Message) -> bytes:
    """Return the frame of a message, its length first."""
    payload = _pack(_converter.unstructure(message, unstructure_as=Message))
    return _LENGTH.pack(len(payload)) + payload


def length_of(header: bytes) -> int:
    """Return how many bytes follow a frame's header."""
    return int(_LENGTH.unpack(header)[0])


def decode(payload: bytes) -> Message:
    """Return the message in a frame's payload."""
    raw: Any = _unpack(payload)
    message: Message = _converter.structure(raw, Message)  # type: ignore[arg-type]
    return message
