"""An HTTP API: `POST /kept` continues a text, whole or as a stream of server-sent events."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from attrs import frozen
from falcon.asgi import Request, Response

from lmx_kernel.api import (
    ApiSurface,
    Event,
    GenerationRequest,
    InvalidRequestError,
    Kernel,
    LmxError,
    Operation,
    TextDelta,
    TextPrompt,
    Usage,
    hookimpl,
)
from lmx_kernel.api.http import FrameWriter, encode_event, read_body, send, stream_answer

HEARTBEAT_S = 10.0
MOST_TOKENS = 4096


@frozen(kw_only=True)
class Body:
    """The body of `POST /kept`."""

    model: str
    text: str
    max_tokens: int = 64
    stream: bool = False


@frozen
class Result:
    """A whole answer."""

    text: str
    tokens: int


@frozen
class ModelNames:
    """The answer of `GET /kept`."""

    models: list[str]


class Writer(FrameWriter):
    """How the events of an answer are written into a stream."""

    def event(self, event: Event) -> bytes:
        """Return a frame for each piece of text; nothing for other events."""
        if not isinstance(event, TextDelta) or not event.text:
            return b""
        return encode_event(msgspec.json.encode({"text": event.text}))

    def failure(self, error: LmxError) -> bytes:
        """Return the end of an answer that fails when its status is sent already."""
        return encode_event(msgspec.json.encode(error_body(error)))

    def closing(self, usage: Usage) -> bytes:
        """Return the end of a complete answer."""
        return encode_event(msgspec.json.encode({"tokens": usage.completion_tokens}))


@frozen
class Texts:
    """The route. A resource has a method for each method of HTTP."""

    kernel: Kernel

    async def on_get(self, req: Request, resp: Response) -> None:
        """List the models."""
        send(resp, ModelNames([one.name for one in self.kernel.model_settings.names()]))

    async def on_post(self, req: Request, resp: Response) -> None:
        """Continue a text.

        `read_body` bounds what is parsed, and reads JSON whatever the content type says.
        """
        body = await read_body(req, Body)
        if not 0 < body.max_tokens <= MOST_TOKENS:
            raise InvalidRequestError(f"max_tokens is 1 to {MOST_TOKENS}", param="max_tokens")
        request = GenerationRequest(
            model=body.model, prompt=TextPrompt(body.text), max_tokens=body.max_tokens
        )
        answer = await self.kernel.generate(request)
        if body.stream:  # waits for the admission, so that a refusal keeps its status
            await stream_answer(resp, answer, Writer(), heartbeat_s=HEARTBEAT_S)
            return
        with answer:  # leaving it cancels what still runs
            texts = [event.text async for event in answer if isinstance(event, TextDelta)]
        send(resp, Result("".join(texts), answer.usage().completion_tokens))


def error_body(error: LmxError) -> Mapping[str, Any]:
    """Return the JSON of an error; its status and headers are the server's matter."""
    return {"error": error.message, "code": error.code}


class Kept:
    """All paths below the prefix, and how errors are rendered there."""

    name = "kept"
    prefix = "/kept"
    scope = "inference"

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel

    def routes(self) -> Iterable[tuple[str, object]]:
        """Return pairs of a path and a resource."""
        return [("/kept", Texts(self.kernel))]

    def operations(self) -> Iterable[Operation]:
        """Return what `/docs` says of each route."""
        yield Operation(
            method="GET",
            path="/kept",
            summary="List the models",
            result=ModelNames,
        )
        yield Operation(
            method="POST",
            path="/kept",
            summary="Continue a text",
            body=Body,
            result=Result,
            streams=True,
            event=dict[str, Any],
        )

    def render_error(self, error: LmxError) -> Mapping[str, Any]:
        """Return the body of an error."""
        return error_body(error)

    def example(self, url: str, model: str) -> str:
        """Return a line to try in a shell."""
        body = msgspec.json.encode({"model": model, "text": "Hello"}).decode()
        return f"curl {url}/kept -d {shlex.quote(body)}"


@hookimpl
def lmx_api_surfaces(kernel: Kernel) -> Iterable[ApiSurface]:
    """Called once."""
    return [Kept(kernel)]
