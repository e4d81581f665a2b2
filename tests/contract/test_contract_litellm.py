"""litellm."""

from __future__ import annotations

import litellm
import pytest
from contract_server import LONG, NOW, PLACE, REAL, TRIP, WEATHER, Place, hi, is_count


@pytest.fixture(params=["openai", "lm_studio"])
def ask(request, base_url):
    """Ask as one of the providers that it knows this dialect by."""

    def ask(model="counter", text="Hi", **fields):
        return litellm.completion(
            model=f"{request.param}/{model}",
            messages=hi(text),
            api_base=base_url,
            api_key="any",
            **fields,
        )

    return ask


@pytest.fixture
def streamed(ask):
    """Ask for a stream, and add it up."""
    return lambda *args, **fields: litellm.stream_chunk_builder(
        list(ask(*args, stream=True, **fields))
    )


def test_chat_streamed_and_not(ask, streamed):
    answer = ask(temperature=0)
    assert is_count(answer.choices[0].message.content, 8)
    assert answer.choices[0].finish_reason == "stop"
    again = streamed(temperature=0, stream_options={"include_usage": True})
    assert again.choices[0].message.content == answer.choices[0].message.content
    assert again.choices[0].finish_reason == "stop"
    for name in ("prompt_tokens", "completion_tokens"):
        assert getattr(again.usage, name) == getattr(answer.usage, name)


def test_candidates_and_logprobs(ask):
    answer = ask(n=2, logprobs=True, top_logprobs=1, temperature=1)
    assert [choice.index for choice in answer.choices] == [0, 1]
    for choice in answer.choices:
        tokens = "".join(one.token for one in choice.logprobs.content)
        assert tokens.strip() == choice.message.content


@pytest.mark.parametrize(
    ("model", "choice"),
    [
        ("caller", "auto"),
        ("counter", "required"),
        ("counter", {"type": "function", "function": {"name": "weather"}}),
    ],
)
def test_calls_streamed_and_not(ask, streamed, model, choice):
    for how in (ask, streamed):
        answer = how(model, tools=[WEATHER], tool_choice=choice, parallel_tool_calls=False)
        assert answer.choices[0].finish_reason == "tool_calls"
        (call,) = answer.choices[0].message.tool_calls
        assert call.function.name == "weather"
        assert call.id
        Place.model_validate_json(call.function.arguments)


def test_thoughts(ask, streamed):
    for how in (ask, streamed):
        message = how("thinker").choices[0].message
        assert message.content == "Hello!"
        assert message.reasoning_content == "Who is it?"


@pytest.mark.parametrize("model", ["counter", REAL])
def test_a_schema_is_followed(ask, model):
    form = {"type": "json_schema", "json_schema": {"name": "place", "schema": PLACE}}
    answer = ask(model, TRIP, response_format=form, temperature=0, max_tokens=400)
    Place.model_validate_json(answer.choices[0].message.content)


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"model": "nope"}, litellm.NotFoundError, "nope"),
        ({"model": "short", "text": LONG}, litellm.ContextWindowExceededError, "context"),
        ({"temperature": 9}, litellm.BadRequestError, "temperature"),
        (
            {"tools": [NOW], "tool_choice": {"type": "function", "function": {"name": "no"}}},
            litellm.BadRequestError,
            "tool_choice",
        ),
    ],
)
def test_errors_are_typed_have_a_message_and_are_not_retried(ask, server, fields, error, message):
    with server.asked() as chats, pytest.raises(error, match=message):
        ask(**fields)
    assert len(chats) == 1


def test_a_failure_in_a_stream_is_an_error(ask):
    with pytest.raises(Exception, match="not finite"):
        list(ask("sour", "vinegar", stream=True))


def test_it_comes_again_when_there_was_no_place(ask, server):
    answer = server.retried(lambda: ask("endless", max_tokens=1, max_retries=2))
    assert answer.choices[0].finish_reason == "length"


def test_a_stream_that_is_left_frees_its_slot(ask, server):
    def leave():
        stream = ask("endless", stream=True)
        next(stream)
        stream.completion_stream.close()

    server.freed(leave)
