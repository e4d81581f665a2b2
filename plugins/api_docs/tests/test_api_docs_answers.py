"""What a daemon really answers is as documented, to the last field."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from jsonschema import Draft202012Validator

CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
TEXT = {"model": "m", "prompt": "hi"}
USAGE = {"stream": True, "stream_options": {"include_usage": True}}
TOOL = {"type": "function", "function": {"name": "f"}}
CHAT_PATH, TEXT_PATH, MESSAGES_PATH = "/v1/chat/completions", "/v1/completions", "/v1/messages"
MESSAGE = {**CHAT, "max_tokens": 50}
MESSAGE_TOOL = {"name": "f", "input_schema": {"type": "object"}}

Check = Callable[[httpx2.Response, str], None]


def closed(schema: Any) -> Any:
    """Return ``schema`` with objects that take no field that is not documented."""
    if isinstance(schema, list):
        return list(map(closed, schema))
    if not isinstance(schema, dict):
        return schema
    more = {"additionalProperties": False} if isinstance(schema.get("properties"), dict) else {}
    return {name: closed(value) for name, value in schema.items()} | more


def data_of(stream: str) -> list[Any]:
    """Return what the events of a stream carry; ``[DONE]`` is no JSON."""
    lines = [line for line in stream.split("\n") if line.startswith("data: ")]
    texts = [line.removeprefix("data: ") for line in lines]
    return [text if text == "[DONE]" else json.loads(text) for text in texts]


@pytest.fixture
def check(document: dict[str, Any]) -> Check:
    """Return a function that fails where an answer is not what is documented for its path."""
    components = document["components"]

    def check(answer: httpx2.Response, path: str) -> None:
        responses = document["paths"][path][answer.request.method.lower()]["responses"]
        status = str(answer.status_code)
        response = responses.get(status) or responses[f"{status[0]}XX"]
        if "$ref" in response:
            response = components["responses"][response["$ref"].rpartition("/")[2]]
            assert answer.headers["x-should-retry"] in ("true", "false")
        assert set(response["headers"]) - {"retry-after"} <= set(answer.headers)
        kind = answer.headers["content-type"].partition(";")[0]
        schema = response["content"][kind]["schema"]
        value = answer.json() if kind == "application/json" else data_of(answer.text)
        root = closed({**schema.get("contentSchema", schema), "components": components})
        Draft202012Validator(root).validate(value)

    return check


@pytest.mark.parametrize("stream", [{}, {"stream": True}, USAGE])
@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT_PATH, CHAT),
        (CHAT_PATH, {**CHAT, "n": 2, "logprobs": True, "top_logprobs": 2, "max_tokens": 2}),
        (CHAT_PATH, {**CHAT, "tools": [TOOL], "tool_choice": "required"}),
        (CHAT_PATH, {**CHAT, "model": "thinker"}),
        (TEXT_PATH, TEXT),
        (TEXT_PATH, {**TEXT, "echo": True, "prompt": ["a", "b"]}),
        (TEXT_PATH, {**TEXT, "logprobs": 2, "max_tokens": 2}),
        (MESSAGES_PATH, MESSAGE),
        (MESSAGES_PATH, {**MESSAGE, "tools": [MESSAGE_TOOL], "tool_choice": {"type": "any"}}),
        (MESSAGES_PATH, {**MESSAGE, "model": "thinker"}),
        (f"{MESSAGES_PATH}/count_tokens", CHAT),
    ],
)
async def test_answers(http: httpx2.AsyncClient, check: Check, path, body, stream):
    answer = await http.post(path, json={**body, **stream})
    assert answer.status_code == 200, answer.text
    check(answer, path)


async def test_models(http: httpx2.AsyncClient, check: Check):
    check(await http.get("/v1/models"), "/v1/models")
    check(await http.get("/v1/models/m"), "/v1/models/{name}")


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        (CHAT_PATH, {}, 400),
        (CHAT_PATH, {**CHAT, "tools": [1]}, 400),
        (TEXT_PATH, {**TEXT, "n": 99}, 400),
        (MESSAGES_PATH, CHAT, 400),
        (MESSAGES_PATH, {**MESSAGE, "model": "nope"}, 404),
        (TEXT_PATH, {**TEXT, "model": "nope"}, 404),
        (CHAT_PATH, {**CHAT, "messages": [{"role": "user", "content": "a lemon"}]}, 502),
    ],
)
async def test_errors(http: httpx2.AsyncClient, check: Check, path, body, status):
    answer = await http.post(path, json=body)
    assert answer.status_code == status
    check(answer, path)


async def test_an_error_in_a_stream(http: httpx2.AsyncClient, check: Check):
    answer = await http.post(TEXT_PATH, json={**TEXT, "prompt": "a lemon", "stream": True})
    assert "error" in data_of(answer.text)[-1]
    check(answer, TEXT_PATH)


async def test_an_undocumented_field_would_be_noticed(http: httpx2.AsyncClient, check: Check):
    answer = await http.get("/v1/models/m")
    answer._content = json.dumps({**answer.json(), "surprise": 1}).encode()
    with pytest.raises(Exception, match="surprise"):
        check(answer, "/v1/models/{name}")
