"""The surface in a real HTTP server, over a kernel that answers as a test scripts it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import openai
import pytest
import uvloop
from attrs import define
from lmx_openai_api.settings import OpenAISettings
from lmx_openai_api.surface import OpenAISurface

from lmx_kernel.http.app import build_app
from lmx_kernel.testing.stub_kernel import (
    MODEL,
    StubKernel,
    hello,
    make_health,
    make_logprob,
    serving,
)
from lmx_kernel.types import Logprobs


def pytest_asyncio_loop_factories(config: object, item: object) -> dict[str, Any]:
    return {"uvloop": uvloop.new_event_loop}  # as the daemon


@define
class Api:
    """What a test asks, and how."""

    kernel: StubKernel
    surface: OpenAISurface
    http: httpx2.AsyncClient
    sdk: openai.AsyncOpenAI

    async def post(self, path: str, body: Any, **kwargs: Any) -> httpx2.Response:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return await self.http.post(f"/v1/{path}", content=content, **kwargs)

    async def chat(self, **fields: Any) -> httpx2.Response:
        return await self.post("chat/completions", chat_body(**fields))

    def open(self, path: str, body: dict[str, Any]) -> Any:
        """Open a stream, and read it as it comes."""
        return self.http.stream("POST", f"/v1/{path}", json={**body, "stream": True})

    @asynccontextmanager
    async def leaving(self, path: str, body: dict[str, Any]) -> AsyncIterator[None]:
        """Send a request, and leave at the end of the block."""
        task = asyncio.create_task(self.post(path, body))
        yield
        task.cancel()
        await asyncio.wait([task])

    hello = staticmethod(hello)

    async def complete(self, **fields: Any) -> httpx2.Response:
        return await self.post("completions", {"model": MODEL, "prompt": "Say", **fields})


def chat_body(**fields: Any) -> dict[str, Any]:
    return {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], **fields}


def split_frames(text: str) -> list[str]:
    """Return the data of all frames; whatever else there is must be a comment."""
    assert text.endswith("\n\n")
    found = [frame for frame in text.split("\n\n")[:-1] if not frame.startswith(":")]
    assert all(frame.startswith("data: ") and "\n" not in frame for frame in found)
    return [frame.removeprefix("data: ") for frame in found]


def split_chunks(text: str) -> list[dict[str, Any]]:
    """Return the chunks of a stream that ended well."""
    *found, last = split_frames(text)
    assert last == "[DONE]"
    return [json.loads(frame) for frame in found]


@pytest.fixture
def surface() -> OpenAISurface:
    return OpenAISurface(StubKernel(), OpenAISettings(heartbeat_s=0.05))  # type: ignore[arg-type]


@pytest.fixture
async def api(surface: OpenAISurface) -> AsyncIterator[Api]:
    async with serving(surface) as url:
        sdk = openai.AsyncOpenAI(
            base_url=f"{url}/v1", api_key="any", max_retries=0, _strict_response_validation=True
        )
        async with httpx2.AsyncClient(base_url=url, timeout=10) as http, sdk:
            yield Api(surface._kernel, surface, http, sdk)  # type: ignore[arg-type]


@pytest.fixture
def kernel(surface: OpenAISurface) -> StubKernel:
    return surface._kernel  # type: ignore[return-value]


@pytest.fixture
def frames() -> Callable[[str], list[str]]:
    return split_frames


@pytest.fixture
def chunks() -> Callable[[str], list[dict[str, Any]]]:
    return split_chunks


@pytest.fixture
def logprob() -> Callable[..., Logprobs]:
    return make_logprob


@pytest.fixture
def start_only(surface: OpenAISurface) -> Callable[[Any], Any]:
    """Post a chat to the bare app, over a connection that breaks when the headers are sent."""
    app = build_app([surface], make_health())

    async def post(body: Any) -> None:
        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": json.dumps(body).encode()}

        async def send(message: Any) -> None:
            raise ConnectionResetError

        path = "/v1/chat/completions"
        scope = {"type": "http", "method": "POST", "path": path, "headers": [], "query_string": b""}
        await app({**scope, "http_version": "1.1", "asgi": {"version": "3.0"}}, receive, send)

    return post
