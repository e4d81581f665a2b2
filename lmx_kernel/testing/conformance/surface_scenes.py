"""What the tests of surfaces send, what models say to it, and how responses are read."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx2 as httpx
import msgspec
from attrs import define, field, frozen

from lmx_kernel.errors import (
    EngineFailedError,
    InvalidRequestError,
    LmxError,
    QueueFullError,
)
from lmx_kernel.interfaces import ApiSurface
from lmx_kernel.runtime.answer import LiveAnswer
from lmx_kernel.testing.stub_kernel import Play
from lmx_kernel.types import (
    Finished,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallStarted,
)

WAIT_S = 10.0
NAMES = ("amber", "birch", "cedar", "delta")


@frozen
class Ask:
    """A request whose answer a model writes.

    :param body: what is sent as JSON; None for none.
    :param streams: whether the answer comes as it is written.
    """

    path: str
    body: Mapping[str, Any] | None = None
    streams: bool = False
    method: str = "POST"


# --- what models say

FAILURE = "its numbers were not finite"


def _write(answer: LiveAnswer, *events: Any, reason: str = "stop") -> None:
    answer.admit(7)
    answer.start()
    for event in events:
        answer.receive(event)
    for index in range(answer.request.candidates):
        answer.receive(Finished(index, reason))
    answer.end("ok")


def _call(arguments: str, reason: str) -> Play:
    started, delta = ToolCallStarted(0, 0, "call_1", "f"), ToolCallDelta(0, 0, arguments)
    return lambda answer: _write(answer, TextDelta(0, "", (1,)), started, delta, reason=reason)


def fail_midway(answer: LiveAnswer) -> None:
    answer.admit(7)
    answer.start()
    answer.receive(TextDelta(0, "Hel", (1,)))
    error = EngineFailedError(FAILURE)
    answer.end(error.code, error)


SCENES: Mapping[str, Play] = {
    "nothing": _write,
    "cut_call": _call('{"a": "', "length"),
    "call": _call('{"a": 1}', "tool_calls"),
    "thinks": lambda answer: _write(
        answer, ReasoningDelta(0, "Hm."), TextDelta(0, "", (1,)), TextDelta(0, "Yes.", (2,))
    ),
    "odd_text": lambda answer: _write(answer, TextDelta(0, 'naïve "\n\\ 🙂 \x00', (1,))),
}


@define
class Parts:
    """Answers that the test writes piece by piece.

    :ivar complete: set when as many requests came as were expected.
    """

    expected: int
    answers: list[LiveAnswer] = field(factory=list)
    complete: asyncio.Event = field(factory=asyncio.Event)

    def play(self, answer: LiveAnswer) -> None:
        """Admit an answer, and leave the rest to the test."""
        answer.admit(7)
        answer.start()
        self.answers.append(answer)
        if len(self.answers) == self.expected:
            self.complete.set()

    def begin(self, answer: LiveAnswer, text: str) -> None:
        """Write the beginning."""
        answer.receive(TextDelta(0, text, (1,)))

    def finish(self, answer: LiveAnswer, text: str = "") -> None:
        """Write the end."""
        answer.receive(TextDelta(0, text, (2,)))
        answer.receive(Finished(0, "stop"))
        answer.end("ok")


# --- HTTP


def client_of(url: str) -> httpx.AsyncClient:
    """Return a client of the server."""
    return httpx.AsyncClient(base_url=url, timeout=WAIT_S)


async def send(
    http: httpx.AsyncClient,
    ask: Ask,
    *,
    content: bytes | None = None,
    content_type: str = "application/json",
    path: str = "",
) -> httpx.Response:
    """Send a request, with another body or content type where these are given."""
    headers = {"content-type": content_type} if content_type else {}
    if content is None and ask.body is not None:
        content = msgspec.json.encode(ask.body)
    return await http.request(ask.method, path or ask.path, content=content, headers=headers)


@asynccontextmanager
async def opened(http: httpx.AsyncClient, ask: Ask) -> AsyncIterator[httpx.Response]:
    """Hold a stream open, once its head is there or the kernel was asked."""
    content = None if ask.body is None else msgspec.json.encode(ask.body)
    async with http.stream(ask.method, ask.path, content=content) as response:
        yield response


def every_error() -> list[LmxError]:
    """Return an error of each class that there is."""
    found: list[LmxError] = []
    kinds: list[type[LmxError]] = [LmxError]
    for kind in kinds:
        kinds += kind.__subclasses__()
        if kind is not LmxError and kind.__module__ == LmxError.__module__:
            found.append(kind(f'about {kind.code}: "quoted", é', param="model"))
    return [*found, QueueFullError("later", retry_after_s=5), InvalidRequestError("no field")]


def check_shape(response: httpx.Response, surfaces: Sequence[ApiSurface]) -> None:
    """Check that an error has the shape that the dialect gives its errors."""
    assert any(is_error(response.content, surface) for surface in surfaces), response.text[:300]


def is_error(content: bytes, surface: ApiSurface) -> bool:
    """Return whether a body has the shape of the surface's errors."""
    expected = msgspec.json.decode(
        msgspec.json.encode(surface.render_error(InvalidRequestError("x", param="x")))
    )
    try:
        found = msgspec.json.decode(content)
    except msgspec.DecodeError:
        return False
    return isinstance(found, dict) and found.keys() == expected.keys()


def check_has(text: str, parts: Sequence[str]) -> None:
    """Check that a response has these texts, in this order."""
    assert re.search(".*?".join(map(re.escape, parts)), text, re.DOTALL), text


def plain(text: str) -> str:
    r"""Return a body with its escapes resolved, as ``\u00e9`` and ``\"``."""
    found = re.sub(r"\\u([0-9a-fA-F]{4})", lambda match: chr(int(match[1], 16)), text)
    return found.replace('\\"', '"')


def texts_in(value: Any) -> str:
    """Return all texts of a prompt."""
    return "\n".join(_texts(msgspec.to_builtins(value)))


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, Mapping):
        value = list(value.values())
    return (
        [text for part in value for text in _texts(part)] if isinstance(value, list | tuple) else []
    )


def name_in(answer: LiveAnswer) -> str:
    """Return which of :data:`NAMES` a request has in its prompt."""
    text = texts_in(answer.request.prompt)
    return next((name for name in NAMES if name in text), "nobody")
