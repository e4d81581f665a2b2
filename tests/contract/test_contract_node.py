"""The official Node client."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from contract_server import LONG, NOW, PLACE, REAL, TRIP, WEATHER, Place, hi, is_count

CLIENT = Path(__file__).with_name("node_client.cjs")
MODULES = Path(sys.prefix) / "node_modules"


@pytest.fixture
def node(base_url):
    """Return a function that asks in one of the client's ways, and returns what came of it."""

    def node(case, model="counter", text="Hi", **fields):
        asked = json.dumps({"model": model, "messages": hi(text), **fields})
        done = subprocess.run(
            ["node", CLIENT, base_url, case, asked],
            env={**os.environ, "NODE_PATH": str(MODULES)},
            capture_output=True,
            text=True,
            check=False,
            timeout=100,
        )
        assert done.stdout, done.stderr
        return json.loads(done.stdout)

    return node


both = pytest.mark.parametrize("case", ["whole", "stream"])


@both
def test_chat(node, case):
    (choice,) = node(case)["choices"]
    assert is_count(choice["message"]["content"], 8)
    assert choice["message"]["role"] == "assistant"
    assert choice["finish_reason"] == "stop"


def test_a_stream_adds_up_to_the_whole_answer(node):
    streamed = node("stream", temperature=0, stream_options={"include_usage": True})
    whole = node("whole", temperature=0)
    assert streamed["choices"][0]["message"]["content"] == whole["choices"][0]["message"]["content"]
    assert streamed["usage"] == whole["usage"]


@both
def test_candidates_and_logprobs(node, case):
    answer = node(case, n=2, logprobs=True, top_logprobs=1)
    assert [choice["index"] for choice in answer["choices"]] == [0, 1]
    for choice in answer["choices"]:
        tokens = "".join(one["token"] for one in choice["logprobs"]["content"])
        assert tokens.strip() == choice["message"]["content"]


@both
@pytest.mark.parametrize(
    ("model", "choice"),
    [
        ("caller", "auto"),
        ("counter", "required"),
        ("counter", {"type": "function", "function": {"name": "weather"}}),
    ],
)
def test_calls(node, case, model, choice):
    answer = node(case, model, tools=[WEATHER], tool_choice=choice, parallel_tool_calls=False)
    assert answer["choices"][0]["finish_reason"] == "tool_calls"
    (call,) = answer["choices"][0]["message"]["tool_calls"]
    assert call["id"]
    assert call["type"] == "function"
    assert call["function"]["name"] == "weather"
    Place.model_validate_json(call["function"]["arguments"])


@both
@pytest.mark.parametrize("model", ["counter", REAL])
def test_a_schema_is_followed(node, case, model):
    form = {"type": "json_schema", "json_schema": {"name": "place", "schema": PLACE}}
    answer = node(case, model, TRIP, response_format=form, temperature=0, max_tokens=400)
    Place.model_validate_json(answer["choices"][0]["message"]["content"])


@pytest.mark.parametrize(
    ("fields", "error", "code"),
    [
        ({"model": "nope"}, "NotFoundError", "model_not_found"),
        ({"model": "short", "text": LONG}, "BadRequestError", "context_length_exceeded"),
        ({"temperature": 9}, "BadRequestError", "invalid_request"),
        (
            {"tools": [NOW], "tool_choice": {"type": "function", "function": {"name": "no"}}},
            "BadRequestError",
            "invalid_request",
        ),
        ({"model": "broken"}, "UnprocessableEntityError", "model_unusable"),
    ],
)
@both
def test_errors_are_typed_have_a_message_and_are_not_retried(
    node, server, fields, error, code, case
):
    with server.asked() as chats:
        told = node(case, **fields)
    assert told["error"] == error
    assert told["code"] == code
    assert told["message"] != str(told["status"])
    assert told["requestID"]
    assert len(chats) == 1


def test_a_failure_in_a_stream_is_an_error(node):
    told = node("stream", "sour", "vinegar")
    assert told["error"] == "APIError"
    assert "not finite" in told["message"]


@both
def test_it_comes_again_when_there_was_no_place(node, server, case):
    answer = server.retried(lambda: node(case, "endless", max_tokens=1))
    assert answer["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize("case", ["leave", "abort"])
def test_a_stream_that_is_left_frees_its_slot(node, server, case):
    server.freed(lambda: node(case, "endless"))
