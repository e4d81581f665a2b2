"""langchain-openai."""

from __future__ import annotations

import openai
import pytest
from contract_server import LONG, REAL, TRIP, WEATHER, Place, is_count
from langchain_core.exceptions import ContextOverflowError
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_openai import ChatOpenAI


@pytest.fixture
def chat(base_url):
    def chat(model="counter", **fields):
        return ChatOpenAI(base_url=base_url, api_key="any", model=model, **fields)

    return chat


def add_up(chunks):
    first, *rest = chunks
    for chunk in rest:
        first += chunk
    return first


def test_chat(chat):
    answer = chat().invoke("Hi")
    assert is_count(answer.content, 8)
    assert answer.response_metadata["finish_reason"] == "stop"
    assert answer.usage_metadata["output_tokens"] > 0


def test_a_stream_with_its_usage(chat):
    answer = add_up(chat(stream_usage=True, temperature=0).stream("Hi"))
    whole = chat(temperature=0).invoke("Hi")
    assert answer.content == whole.content
    assert answer.usage_metadata == whole.usage_metadata


def test_candidates_and_logprobs(chat):
    (answers,) = (
        chat(n=2, logprobs=True, temperature=1).generate([[HumanMessage("Hi")]]).generations
    )
    assert len(answers) == 2
    assert all(is_count(answer.text, 8) for answer in answers)
    tokens = answers[0].message.response_metadata["logprobs"]["content"]
    assert "".join(token["token"] for token in tokens).strip() == answers[0].text


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    ("model", "choice"), [("caller", None), ("counter", "any"), ("counter", "weather")]
)
def test_calls(chat, streamed, model, choice):
    bound = chat(model).bind_tools([WEATHER], tool_choice=choice, parallel_tool_calls=False)
    answer = add_up(bound.stream("Hi")) if streamed else bound.invoke("Hi")
    (call,) = answer.tool_calls
    assert not answer.invalid_tool_calls
    assert call["name"] == "weather"
    assert call["id"]
    Place.model_validate(call["args"])


def test_the_result_of_a_call_goes_back(chat):
    call = chat("caller").bind_tools([WEATHER]).invoke("Hi")
    result = ToolMessage("sunny", tool_call_id=call.tool_calls[0]["id"])
    answer = chat("talker").bind_tools([WEATHER]).invoke([HumanMessage("Hi"), call, result])
    assert answer.content == "Hello there."


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
@pytest.mark.parametrize("model", ["counter", REAL])
def test_a_model_class_as_the_answer(chat, method, model):
    bound = chat(model, temperature=0, max_tokens=400).with_structured_output(Place, method=method)
    assert isinstance(bound.invoke(TRIP), Place)
    *_, last = bound.stream(TRIP)
    assert isinstance(last, Place)


@pytest.mark.parametrize(
    ("fields", "text", "error", "message"),
    [
        ({"model": "nope"}, "Hi", openai.NotFoundError, "nope"),
        ({"model": "short"}, LONG, ContextOverflowError, "context"),
        ({"temperature": 9}, "Hi", openai.BadRequestError, "temperature"),
    ],
)
def test_errors_are_typed_have_a_message_and_are_not_retried(
    chat, server, fields, text, error, message
):
    with server.asked() as chats, pytest.raises(error, match=message):
        chat(**fields).invoke(text)
    assert len(chats) == 1


def test_it_comes_again_when_there_was_no_place(chat, server):
    assert server.retried(lambda: chat("endless", max_tokens=1).invoke("Hi")).content


def test_a_stream_that_is_left_frees_its_slot(chat, server):
    def leave():
        stream = chat("endless").stream("Hi")
        next(stream)
        stream.close()

    server.freed(leave)
