"""instructor, in each of the ways that it asks for objects."""

from __future__ import annotations

import instructor
import openai
import pytest
from contract_server import LONG, REAL, TRIP, Place, hi
from instructor.core.exceptions import InstructorRetryException

MODES = [instructor.Mode.TOOLS, instructor.Mode.JSON_SCHEMA, instructor.Mode.JSON]


@pytest.fixture
def client(base_url):
    """Return a client for a mode; the first is what it takes by itself: a call that is named."""
    with openai.OpenAI(base_url=base_url, api_key="any") as sdk:
        yield lambda mode=MODES[0]: instructor.from_openai(sdk, mode=mode)


@pytest.mark.parametrize("mode", MODES[:2])
@pytest.mark.parametrize("model", ["counter", REAL])
def test_objects(client, mode, model):
    place, answer = client(mode).chat.completions.create_with_completion(
        model=model,
        messages=hi(TRIP),
        response_model=Place,
        max_retries=0,
        temperature=0,
        max_tokens=400,
    )
    assert isinstance(place, Place)
    assert answer.usage.completion_tokens > 0


@pytest.mark.parametrize("mode", MODES[:2])
def test_an_object_that_grows(client, mode):
    *_, last = client(mode).chat.completions.create_partial(
        model="counter", messages=hi(), response_model=Place, max_retries=0
    )
    assert Place.model_validate(last.model_dump())


def test_what_does_not_fit_is_asked_for_again_with_the_history(client, server):
    """JSON that is any object: it fails the class, and goes back with what was wrong."""
    with server.asked() as chats, pytest.raises(InstructorRetryException):
        client(MODES[2]).chat.completions.create(
            model="counter", messages=hi(), response_model=Place, max_retries=1
        )
    assert [chat["status"] for chat in chats] == [200, 200]


@pytest.mark.parametrize(
    ("fields", "status", "message"),
    [
        ({"model": "nope"}, 404, "nope"),
        ({"model": "short", "messages": hi(LONG)}, 400, "context"),
        ({"temperature": 9}, 400, "temperature"),
    ],
)
def test_errors_are_typed_have_a_message_and_are_not_retried(
    client, server, fields, status, message
):
    asked = {"model": "counter", "messages": hi(), "response_model": Place, "max_retries": 0}
    with server.asked() as chats, pytest.raises(Exception, match=message) as caught:
        client().chat.completions.create(**asked | fields)
    error = caught.value
    while not isinstance(error, openai.APIStatusError):
        error = error.__cause__
        assert error, "not of the client's own kind"
    assert error.status_code == status
    assert len(chats) == 1
