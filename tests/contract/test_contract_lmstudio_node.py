"""Two versions of LM Studio's SDK for JavaScript, over the websocket protocol."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from contract_server import is_count

CLIENT = Path(__file__).with_name("lmstudio_client.cjs")
MODULES = Path(sys.prefix) / "node_modules"


@pytest.fixture(scope="module", params=["lmstudio-sdk-1", "lmstudio-sdk-2"])
def told(request, server):
    """Return what came of each call of a client, which makes all of them once."""
    since = server.mark()
    done = subprocess.run(
        ["node", CLIENT, request.param, server.url],
        env={**os.environ, "NODE_PATH": str(MODULES)},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.stdout, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert "error" not in told, told["error"]
    lines = server.records[since : server.mark()]
    assert not [line for line in lines if line["event"] == "lmstudio_frame_rejected"]
    return told


def test_models(told):
    assert {"counter", "slow", "vectors"} <= set(told["downloaded"])
    assert told["version"]["version"]
    assert "mine" in told["loaded"]
    assert "mine" not in told["unloaded"]
    assert told["any"] in told["loaded"]


def test_a_load(told):
    load = told["load"]
    assert load["shares"] == sorted(load["shares"])
    assert load["shares"][-1] == 1
    assert (load["info"]["identifier"], load["info"]["modelKey"]) == ("mine", "slow")
    assert load["info"]["contextLength"] == told["contextLength"] == 512
    assert told["loadConfig"]
    assert told["again"] == "mine"


def test_answers(told):
    assert is_count(told["respond"]["content"], 8)
    assert (told["respond"]["model"], told["respond"]["stats"]["stopReason"]) == (
        "counter",
        "eosFound",
    )
    assert len(told["stream"]["parts"]) > 1
    assert is_count("".join(told["stream"]["parts"]), 8)
    assert is_count(told["complete"]["content"], 3)
    assert told["complete"]["stats"]["stopReason"] == "maxPredictedTokensReached"


def test_a_schema_is_followed(told):
    assert len(told["structured"]["city"]) <= 3
    assert isinstance(told["structured"]["days"], int)


def test_thoughts(told):
    assert told["thought"] == ["Who is it?", "Hello!"]


def test_an_answer_that_is_cancelled(told):
    assert told["cancelled"]["stopReason"] == "userStopped"


def test_rounds_with_a_tool(told):
    assert told["act"]["rounds"] == 2
    asked, result, answer = told["act"]["messages"]
    assert "A moment." in asked
    assert "weather" in asked
    assert result == 'tool: "sunny in Rome"'
    assert answer == "assistant: It is sunny."


def test_tokens_and_vectors(told):
    assert told["tokens"] == [[*b"hello"], [[*b"a"], [*b"bc"]]]
    assert told["count"] == 5
    assert told["template"] == "user: Hi\nassistant:"
    assert (told["vector"], told["vectors"]) == (2, 40)


def test_errors_have_a_message(told):
    assert "nope" in told["unknown"]["cause"]
    assert "damaged" in told["damaged"]["message"]
    assert "too long" in told["overflow"]["message"]
    assert "not finite" in told["failed"]["message"]


def test_an_image_is_taken_and_refused_where_it_is_used(told):
    assert told["image"] == 8
    assert "text only" in told["refused"]["message"]


def test_the_log(told):
    assert told["log"]["modelIdentifier"] == "counter"
