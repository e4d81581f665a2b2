"""llm, set up by its file as its users do it."""

from __future__ import annotations

import gc

import llm
import pytest
from contract_server import LONG, PLACE, REAL, TRIP, Place, is_count

MODELS = ("counter", "caller", "talker", "short", "endless", "nope", REAL)


@pytest.fixture
def model(tmp_path, monkeypatch, base_url):
    monkeypatch.setenv("LLM_USER_PATH", str(tmp_path))
    entries = [
        f"- model_id: lmx-{name}\n  model_name: {name}\n  api_base: {base_url}\n"
        "  supports_tools: true\n  supports_schema: true\n"
        for name in MODELS
    ]
    (tmp_path / "extra-openai-models.yaml").write_text("".join(entries))
    return lambda name: llm.get_model(f"lmx-{name}")


def weather(city: str, days: int) -> str:
    """Tell the weather."""
    return f"{days} sunny days in {city}"


@pytest.mark.parametrize("stream", [True, False])
def test_chat(model, stream):
    answer = model("counter").prompt("Hi", stream=stream)
    assert is_count(answer.text(), 8)
    assert answer.usage().output > 0


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("name", ["counter", REAL])
def test_a_schema_is_followed(model, name, stream):
    answer = model(name).prompt(TRIP, schema=PLACE, stream=stream, temperature=0, max_tokens=400)
    Place.model_validate_json(answer.text())


@pytest.mark.parametrize("stream", [True, False])
def test_a_call_and_its_result(model, stream):
    first = model("caller").prompt("Hi", tools=[weather], stream=stream)
    (call,) = first.tool_calls()
    Place.model_validate(call.arguments)
    (result,) = first.execute_tool_calls()
    assert result.output == "2 sunny days in Rome"
    second = model("talker").prompt("", tools=[weather], tool_results=[result], stream=stream)
    assert second.text() == "Hello there."


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [("nope", "Hi", "nope"), ("short", LONG, "context")],
)
@pytest.mark.parametrize("stream", [True, False])
def test_errors_have_a_message_and_are_not_retried(model, server, name, text, message, stream):
    with server.asked() as chats, pytest.raises(Exception, match=message):
        model(name).prompt(text, stream=stream).text()
    assert len(chats) == 1


def test_a_stream_that_is_left_frees_its_slot(model, server):
    def leave():
        next(iter(model("endless").prompt("Hi")))
        gc.collect()  # it has no other way to close a stream

    server.freed(leave)
