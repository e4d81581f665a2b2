"""Ollama's client for JavaScript."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from contract_server import ARGUMENTS, LONG, PLACE, REAL, TRIP, WEATHER, Place, hi, is_count

CLIENT = Path(__file__).with_name("ollama_client.cjs")
MODULES = Path(sys.prefix) / "node_modules"


@pytest.fixture
def node(server):
    """Return a function that asks in one of the client's ways, and returns what came of it."""

    def node(case, model="counter", **fields):
        asked = json.dumps({"model": model, **fields})
        done = subprocess.run(
            ["node", CLIENT, server.url, case, asked],
            env={**os.environ, "NODE_PATH": str(MODULES)},
            capture_output=True,
            text=True,
            check=False,
            timeout=100,
        )
        assert done.stdout, done.stderr
        return json.loads(done.stdout)

    return node


@pytest.fixture
def chat(node):
    """Return a function that returns the message of an answer, and its last line."""

    def chat(case, model="counter", text="Hi", **fields):
        lines = node(case, model, messages=hi(text), **fields)
        lines = lines if isinstance(lines, list) else [lines]
        messages = [line["message"] for line in lines]
        calls = [call for one in messages for call in one.get("tool_calls", ())]
        text = "".join(one["content"] for one in messages)
        thinking = "".join(one.get("thinking", "") for one in messages)
        return {"content": text, "thinking": thinking, "tool_calls": calls}, lines[-1]

    return chat


both = pytest.mark.parametrize("case", ["chat", "stream"])


@both
def test_chat(chat, case):
    message, last = chat(case)
    assert is_count(message["content"], 8)
    assert (last["done"], last["done_reason"]) == (True, "stop")
    assert last["eval_duration"] > 0


def test_generate(node):
    lines = node("generate", "talker", prompt="Hi")
    assert "".join(line["response"] for line in lines) == "Hello there."


@both
def test_calls(chat, case):
    message, _ = chat(case, "caller", tools=[WEATHER])
    (call,) = message["tool_calls"]
    assert call["function"]["name"] == "weather"
    assert call["function"]["arguments"] == ARGUMENTS


@both
@pytest.mark.parametrize("model", ["counter", REAL])
def test_a_schema_is_followed(chat, case, model):
    options = {"temperature": 0, "num_predict": 400}
    message, _ = chat(case, model, TRIP, format=PLACE, options=options)
    Place.model_validate_json(message["content"])


@both
def test_thoughts(chat, case):
    message, _ = chat(case, "thinker", think=True)
    assert (message["thinking"], message["content"]) == ("Who is it?", "Hello!")


def test_models(node):
    assert "counter" in {model["model"] for model in node("list")["models"]}
    assert "counter" in {model["model"] for model in node("ps")["models"]}
    assert node("show", "short")["model_info"]["fake.context_length"] == 64


@both
@pytest.mark.parametrize(
    ("model", "text", "status", "message"),
    [
        ("nope", "Hi", 404, "model 'nope' not found"),
        ("short", LONG, 400, "too long"),
        ("broken", "Hi", 422, "damaged"),
    ],
)
def test_errors_have_a_message(node, case, model, text, status, message):
    told = node(case, model, messages=hi(text))
    assert told["status"] == status
    assert message in told["message"]


def test_a_failure_in_a_stream_is_an_error(node):
    assert "not finite" in node("stream", "sour", messages=hi("vinegar"))["message"]


def test_a_stream_that_is_left_ends(node):
    assert node("abort", "endless", messages=hi()) == {"aborted": "AbortError"}
