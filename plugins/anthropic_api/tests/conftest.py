"""The surface in a real HTTP server, over a kernel that answers as a test scripts it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import anthropic
import httpx2
import pytest
import uvloop
from attrs import define
from lmx_anthropic_api.settings import AnthropicSettings
from lmx_anthropic_api.surface import AnthropicSurface
from lmx_openai_api.settings import OpenAISettings
from lmx_openai_api.surface import OpenAISurface

from lmx_kernel.testing.stub_kernel import MODEL, StubKernel, serving


def pytest_asyncio_loop_factories(config: object, item: object) -> dict[str, Any]:
    return {"uvloop": uvloop.new_event_loop}  # as the daemon


@define
class Api:
    """What a test asks, and how."""

    kernel: StubKernel
    http: httpx2.AsyncClient
    sdk: anthropic.AsyncAnthropic

    async def post(self, path: str, body: Any) -> httpx2.Response:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return await self.http.post(f"/v1/{path}", content=content)

    async def ask(self, **fields: Any) -> httpx2.Response:
        return await self.post("messages?beta=true", message_body(**fields))

    async def prompt(self, **fields: Any) -> Any:
        """Return the prompt that the kernel gets for a body."""
        before = len(self.kernel.answers)
        answer = await self.ask(**fields)
        assert answer.status_code == 200, answer.text
        return self.kernel.answers[before].request.prompt

    async def refusal(self, **fields: Any) -> str:
        """Return the message of a refusal, whose shape is checked."""
        answer = await self.ask(**fields)
        assert answer.status_code == 400, answer.text
        body = answer.json()
        assert (body["type"], body["error"]["type"]) == ("error", "invalid_request_error")
        assert answer.headers["x-should-retry"] == "false"
        return str(body["error"]["message"])

    async def frames(self, **fields: Any) -> list[dict[str, Any]]:
        """Return the data of all events of a stream."""
        return split_frames((await self.ask(stream=True, **fields)).text)


def message_body(**fields: Any) -> dict[str, Any]:
    hi = [{"role": "user", "content": "Hi"}]
    body = {"model": MODEL, "max_tokens": 100, "messages": hi, **fields}
    return {name: value for name, value in body.items() if value is not ...}


def split_frames(text: str) -> list[dict[str, Any]]:
    """Return the data of all events, each of which must have its name."""
    assert text.endswith("\n\n")
    found = []
    for frame in text.split("\n\n")[:-1]:
        name, data = frame.split("\n")
        found.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {found[-1]['type']}"
    return found


@pytest.fixture
def kernel() -> StubKernel:
    return StubKernel()


@pytest.fixture
async def api(kernel: StubKernel) -> AsyncIterator[Api]:
    surface = AnthropicSurface(kernel, AnthropicSettings(heartbeat_s=0.05))  # type: ignore[arg-type]
    other = OpenAISurface(kernel, OpenAISettings())  # type: ignore[arg-type]
    async with serving(surface, other) as url:
        sdk = anthropic.AsyncAnthropic(
            base_url=url, api_key="any", max_retries=0, _strict_response_validation=True
        )
        async with httpx2.AsyncClient(base_url=url, timeout=10) as http, sdk:
            yield Api(kernel, http, sdk)


@pytest.fixture
def frames() -> Callable[[str], list[dict[str, Any]]]:
    return split_frames
