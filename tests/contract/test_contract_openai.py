"""The official Python client."""

from __future__ import annotations

import openai
import pytest
from contract_server import ARGUMENTS, LONG, NOW, PLACE, REAL, TRIP, WEATHER, Place, hi, is_count


class Weather(Place):
    """Tells the weather."""


@pytest.fixture
def sdk(base_url):
    with openai.OpenAI(
        base_url=base_url, api_key="any", _strict_response_validation=True
    ) as client:
        yield client


def ask(sdk, model="counter", text="Hi", **fields):
    return sdk.chat.completions.create(model=model, messages=hi(text), **fields)


def streamed(sdk, model="counter", text="Hi", **fields):
    """Return what the client's own helper makes of a stream."""
    with sdk.chat.completions.stream(model=model, messages=hi(text), **fields) as stream:
        return stream.get_final_completion()


def test_chat(sdk):
    answer = ask(sdk)
    assert is_count(answer.choices[0].message.content, 8)
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer._request_id


def test_a_stream_adds_up_to_the_whole_answer(sdk):
    answer = streamed(sdk, temperature=0, stream_options={"include_usage": True})
    whole = ask(sdk, temperature=0)
    assert answer.choices[0].message.content == whole.choices[0].message.content
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage == whole.usage


def test_candidates_and_logprobs(sdk):
    fields = {"n": 2, "logprobs": True, "top_logprobs": 2, "temperature": 1, "seed": 3}
    for answer in (ask(sdk, **fields), streamed(sdk, **fields)):
        assert [choice.index for choice in answer.choices] == [0, 1]
        texts = [choice.message.content for choice in answer.choices]
        assert all(is_count(text, 8) for text in texts)
        assert texts[0] != texts[1]
        for choice in answer.choices:
            # The last token ends the answer, and has no text.
            tokens = [one for one in choice.logprobs.content if one.token]
            assert "".join(one.token for one in tokens).strip() == choice.message.content
            assert all(len(one.top_logprobs) == 2 for one in tokens)


@pytest.mark.parametrize("how", [ask, streamed])
def test_a_call_as_the_model_likes(sdk, how):
    (choice,) = how(sdk, "caller", tools=[WEATHER, NOW]).choices
    (call,) = choice.message.tool_calls
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content == "A moment."
    assert call.function.name == "weather"
    assert call.id
    Place.model_validate_json(call.function.arguments)
    assert ARGUMENTS["city"] in call.function.arguments


@pytest.mark.parametrize("how", [ask, streamed])
@pytest.mark.parametrize(
    "choice", ["required", {"type": "function", "function": {"name": "weather"}}]
)
def test_a_call_that_must_be(sdk, how, choice):
    answer = how(sdk, tools=[WEATHER], tool_choice=choice, parallel_tool_calls=False)
    assert answer.choices[0].finish_reason == "tool_calls"
    (call,) = answer.choices[0].message.tool_calls
    Place.model_validate_json(call.function.arguments)


def test_the_result_of_a_call_goes_back(sdk):
    message = ask(sdk, "caller", tools=[WEATHER]).choices[0].message
    result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "sunny"}
    answer = sdk.chat.completions.create(
        model="talker", messages=[*hi(), message, result], tools=[WEATHER]
    )
    assert answer.choices[0].message.content == "Hello there."


@pytest.mark.parametrize("model", ["counter", REAL])
def test_a_model_class_as_the_answer(sdk, model):
    answer = sdk.chat.completions.parse(
        model=model, messages=hi(TRIP), response_format=Place, temperature=0, max_tokens=400
    )
    assert isinstance(answer.choices[0].message.parsed, Place)
    streamed_one = streamed(sdk, model, TRIP, response_format=Place, temperature=0, max_tokens=400)
    assert isinstance(streamed_one.choices[0].message.parsed, Place)


def test_a_model_class_as_the_arguments(sdk):
    answer = sdk.chat.completions.parse(
        model="counter",
        messages=hi(),
        tools=[openai.pydantic_function_tool(Weather)],
        tool_choice="required",
        parallel_tool_calls=False,
    )
    (call,) = answer.choices[0].message.tool_calls
    assert isinstance(call.function.parsed_arguments, Weather)


def test_json_of_a_real_model(sdk):
    form = {"type": "json_schema", "json_schema": {"name": "place", "schema": PLACE}}
    answer = ask(sdk, REAL, TRIP, response_format=form, temperature=0, max_tokens=400)
    Place.model_validate_json(answer.choices[0].message.content)


@pytest.mark.parametrize(
    ("fields", "error", "code", "param"),
    [
        ({"model": "nope"}, openai.NotFoundError, "model_not_found", "model"),
        (
            {"model": "short", "text": LONG},
            openai.BadRequestError,
            "context_length_exceeded",
            "messages",
        ),
        ({"temperature": 9}, openai.BadRequestError, "invalid_request", "temperature"),
        (
            {"tools": [NOW], "tool_choice": {"type": "function", "function": {"name": "no"}}},
            openai.BadRequestError,
            "invalid_request",
            "tool_choice",
        ),
        (
            {"model": "broken"},
            openai.UnprocessableEntityError,
            "model_unusable",
            None,
        ),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_errors_are_typed_have_a_message_and_are_not_retried(
    sdk, server, fields, error, code, param, stream
):
    with server.asked() as chats, pytest.raises(error) as caught:
        ask(sdk, stream=stream, **fields)
    assert caught.value.code == code
    assert caught.value.body["message"] in str(caught.value)
    assert caught.value.request_id
    assert len(chats) == 1
    if param:
        assert caught.value.param.split(".")[0] == param


def test_a_failure_in_a_stream_is_an_error(sdk):
    with pytest.raises(openai.APIError, match="not finite"):
        list(ask(sdk, "sour", "vinegar", stream=True))


def test_it_comes_again_when_there_was_no_place(sdk, server):
    answer = server.retried(lambda: ask(sdk, "endless", max_tokens=1))
    assert answer.choices[0].finish_reason == "length"


def test_a_stream_that_is_left_frees_its_slot(sdk, server):
    def leave():
        with ask(sdk, "endless", stream=True) as stream:
            next(stream)

    server.freed(leave)
    assert ask(sdk, "endless", max_tokens=1).choices


async def test_so_does_an_asynchronous_one(base_url, server):
    async with openai.AsyncOpenAI(base_url=base_url, api_key="any") as sdk:
        since = server.mark()
        async with await ask(sdk, "endless", stream=True) as stream:
            await anext(stream)
        assert server.wait_for(since, lambda r: r["event"] == "request")["outcome"] == "cancelled"
        assert (await ask(sdk, "endless", max_tokens=1)).choices


def test_a_call_that_times_out_is_not_worked_on(base_url, server):
    with openai.OpenAI(base_url=base_url, api_key="any", timeout=1, max_retries=1) as sdk:
        since = server.mark()
        with pytest.raises(openai.APITimeoutError):
            ask(sdk, "endless")
        for _ in range(2):
            record = server.wait_for(since, lambda record: record["event"] == "request")
            assert record["outcome"] == "cancelled"
            since = server.records.index(record) + 1
