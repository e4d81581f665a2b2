"""What goes over the wire, for what clients tell too late or not at all."""

from __future__ import annotations

import json
import socket
from urllib.parse import urlsplit

import httpx2
import pytest
from contract_server import CHAT_PATH, LONG, NOW, REAL, WEATHER, hi

URL = CHAT_PATH


@pytest.fixture
def http(server):
    with httpx2.Client(base_url=server.url, timeout=60) as client:
        yield client


def ask(http, model="counter", text="Hi", **fields):
    return http.post(URL, json={"model": model, "messages": hi(text), **fields})


def frames(answer):
    """Return the data of a stream's frames; all else must be comments."""
    assert answer.status_code == 200
    assert "\r" not in answer.text
    assert answer.text.endswith("\n\n")
    found = answer.text.removesuffix("\n\n").split("\n\n")
    data = [frame for frame in found if not frame.startswith(":")]
    assert all(frame.startswith("data: ") and "\n" not in frame for frame in data)
    return [frame.removeprefix("data: ") for frame in data]


def chunks(answer):
    """Return the chunks of a stream that ends well."""
    *found, last = frames(answer)
    assert last == "[DONE]"
    return [json.loads(frame) for frame in found]


# --- headers ---


def test_every_answer_has_an_id_and_a_type(http):
    for answer in (ask(http), ask(http, "nope"), http.get("/v1/models"), http.get("/nowhere")):
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["x-request-id"]


def test_a_stream_is_not_to_be_cached_or_held_back(http):
    headers = ask(http, stream=True).headers
    assert headers["content-type"].partition(";")[0] == "text/event-stream"
    assert headers["cache-control"] == "no-cache"
    assert headers["x-accel-buffering"] == "no"
    assert headers["x-request-id"]


def test_headers_of_all_kinds_of_clients_are_borne(http):
    headers = {
        "x-stainless-retry-count": "1",
        "x-stainless-read-timeout": "600",
        "x-stainless-helper-method": "stream",
        "idempotency-key": "k",
        "openai-organization": "o",
        "openai-project": "p",
        "anthropic-version": "2999-01-01",
        "anthropic-beta": "b",
        "authorization": "Bearer whatever",
        "x-api-key": "whatever",
        "content-type": "application/x-www-form-urlencoded",
    }
    body = json.dumps({"model": "counter", "messages": hi()}).encode()
    assert http.post(URL, content=body, headers=headers).status_code == 200


# --- errors ---


@pytest.mark.parametrize(
    ("method", "path", "content", "status"),
    [
        ("POST", URL, b"{", 400),
        ("POST", URL, b'{"model":"counter"}', 400),
        ("POST", URL, b'{"model":"counter","messages":"Hi"}', 400),
        ("POST", URL, b"\xff", 400),
        ("POST", URL, json.dumps({"model": "nope", "messages": hi()}).encode(), 404),
        ("POST", URL, json.dumps({"model": "short", "messages": hi(LONG)}).encode(), 400),
        ("POST", URL, json.dumps({"model": "broken", "messages": hi()}).encode(), 422),
        ("GET", "/v1/nowhere", b"", 404),
        ("GET", "/nowhere", b"", 404),
        ("GET", "/v1/models/nope", b"", 404),
        ("DELETE", URL, b"", 405),
    ],
)
def test_an_error_is_an_object_with_a_message_and_final(http, method, path, content, status):
    answer = http.request(method, path, content=content)
    assert answer.status_code == status
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    assert answer.headers["x-should-retry"] == "false"
    assert "retry-after" not in answer.headers


def test_what_is_no_http_is_told_so_in_the_same_shape(server):
    address = urlsplit(server.url)
    with socket.create_connection((address.hostname, address.port), 10) as connection:
        connection.sendall(b"GET / WHAT\r\n\r\n")
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert b" 400 " in answer.partition(b"\r\n")[0]
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["message"]


def test_an_unknown_model_is_told_with_those_there_are(http):
    error = ask(http, "nope").json()["error"]
    assert error["code"] == "model_not_found"
    assert error["param"] == "model"
    assert "counter" in error["message"]


def test_no_place_is_told_with_a_time_that_clients_respect(http, server):
    with server.full():
        answer = ask(http, "endless")
    assert answer.status_code == 429
    assert answer.headers["x-should-retry"] == "true"
    assert 1 <= int(answer.headers["retry-after"]) <= 60


def test_a_model_that_crashes_is_not_tried_again_at_once(http):
    crashed = ask(http, "deadly")
    assert crashed.status_code >= 500
    assert crashed.headers["x-should-retry"] == "false", crashed.text
    while (answer := ask(http, "deadly")).status_code != 503:
        assert answer.headers["x-should-retry"] == "false"
    assert answer.headers["x-should-retry"] == "true"
    assert 1 <= int(answer.headers["retry-after"]) <= 60


@pytest.mark.parametrize(
    ("model", "text", "status"), [("nope", "Hi", 404), ("short", LONG, 400), ("broken", "Hi", 422)]
)
def test_a_stream_that_is_refused_has_its_own_status(http, model, text, status):
    assert ask(http, model, text, stream=True).status_code == status


# --- streams ---


def test_a_stream_begins_with_the_role(http):
    first, *rest = chunks(ask(http, stream=True, n=2))
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    roles = [
        (c["index"], c["delta"].get("role")) for chunk in (first, *rest) for c in chunk["choices"]
    ]
    assert sorted(entry for entry in roles if entry[1]) == [(0, "assistant"), (1, "assistant")]


def test_a_model_that_loads_keeps_its_clients_by_comments(http):
    with http.stream(
        "POST", URL, json={"model": "slow", "messages": hi(), "stream": True}
    ) as answer:
        lines = answer.iter_lines()
        opening = [next(lines), next(lines)]
        beats = []
        for line in lines:
            if line.startswith("data: "):
                break
            beats.append(line)
        rest = list(lines)
    assert json.loads(opening[0].removeprefix("data: "))["choices"][0]["delta"]["role"]
    assert len([beat for beat in beats if beat.startswith(":")]) >= 1
    assert all(beat.startswith(":") or not beat for beat in beats)
    assert "data: [DONE]" in rest


def test_every_choice_ends_once_and_then_comes_the_usage(http):
    *found, usage = chunks(ask(http, stream=True, n=2, stream_options={"include_usage": True}))
    ends = [
        (choice["index"], choice["finish_reason"])
        for chunk in found
        for choice in chunk["choices"]
        if choice["finish_reason"]
    ]
    assert sorted(ends) == [(0, "stop"), (1, "stop")]
    assert usage["choices"] == []
    assert usage["usage"] == ask(http, n=2).json()["usage"]


def test_without_being_asked_no_chunk_lacks_a_choice(http):
    assert all(chunk["choices"] for chunk in chunks(ask(http, stream=True)))


def test_all_chunks_are_of_one_answer(http):
    found = chunks(ask(http, stream=True, stream_options={"include_usage": True}))
    assert len({(chunk["id"], chunk["created"], chunk["model"]) for chunk in found}) == 1
    assert {chunk["object"] for chunk in found} == {"chat.completion.chunk"}
    created = found[0]["created"]
    assert isinstance(created, int)
    assert 0 < created < 2**32
    assert found[0]["model"] == "counter"
    assert all(isinstance(c["index"], int) for chunk in found for c in chunk["choices"])


def test_a_stream_ends_whole_and_its_connection_is_used_again(server):
    """A client that reads [DONE] hardly waits for the terminator before it drops the connection."""
    address = urlsplit(server.url)
    body = json.dumps({"model": "counter", "messages": hi(), "stream": True}).encode()
    head = f"POST {URL} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n\r\n"
    with socket.create_connection((address.hostname, address.port), 10) as connection:
        for _ in range(2):
            connection.sendall(head.encode() + body)
            received = b""
            while not received.endswith(b"0\r\n\r\n"):
                piece = connection.recv(65536)
                assert piece
                received += piece
            assert received.startswith(b"HTTP/1.1 200 ")
            assert received.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")


def test_a_failure_in_a_stream_is_no_end(http):
    *found, last = frames(ask(http, "sour", "vinegar", stream=True))
    assert found
    error = json.loads(last)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]


def test_a_call_is_named_once_and_then_only_written(http):
    found = chunks(ask(http, "caller", stream=True, tools=[WEATHER, NOW]))
    deltas = [choice["delta"] for chunk in found for choice in chunk["choices"]]
    assert all(delta["tool_calls"] for delta in deltas if "tool_calls" in delta)
    first, *rest = [call for delta in deltas for call in delta.get("tool_calls", ())]
    assert first["id"]
    assert first["type"] == "function"
    assert first["function"]["name"] == "weather"
    assert len(rest) > 1
    for call in rest:
        assert set(call) == {"index", "function"}
        assert set(call["function"]) == {"arguments"}
        assert call["function"]["arguments"]
    assert {call["index"] for call in (first, *rest)} == {0}


# --- whole answers ---


def test_the_whole_object(http):
    answer = ask(http, logprobs=True).json()
    assert set(answer) >= {"id", "object", "created", "model", "choices", "usage"}
    assert answer["object"] == "chat.completion"
    (choice,) = answer["choices"]
    assert set(choice) == {"index", "message", "logprobs", "finish_reason"}
    assert choice["message"]["role"] == "assistant"
    assert "tool_calls" not in choice["message"]
    usage = answer["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert usage["prompt_tokens_details"]["cached_tokens"] == 0
    assert usage["completion_tokens_details"]["reasoning_tokens"] == 0


def test_an_answer_of_calls_only_ends_as_one(http):
    (choice,) = ask(http, tools=[WEATHER], tool_choice="required").json()["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] is None


def test_thoughts_have_a_field_of_their_own(http):
    (choice,) = ask(http, "thinker").json()["choices"]
    assert choice["message"]["content"] == "Hello!"
    assert choice["message"]["reasoning_content"] == "Who is it?"


# --- requests ---


@pytest.mark.parametrize(
    "fields",
    [
        {"max_tokens": -1},
        {"ttl": 60},
        {"top_k": 40, "min_p": 0.1, "repeat_penalty": 1.1, "seed": 1},
        {"draft_model": None},
        {"logit_bias": {"257": -100}},
        {"stream_options": None},
        {"stop": "x"},
        {"stop": ["x", "y"]},
        {"n": 2},
        {"response_format": {"type": "text"}},
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "x", "strict": "true", "schema": {"type": "object"}},
            }
        },
        {"tools": [NOW]},
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": None}}]},
        {"field_of_tomorrow": {"a": 1}},
        {"messages": [{"role": "developer", "content": "Be short."}, *hi()]},
        {
            "messages": [
                {"role": role, "content": [{"type": "text", "text": "Hi"}]}
                for role in ("system", "user", "assistant", "user")
            ]
        },
        {
            "messages": [
                *hi(),
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [
                        {
                            "id": "c",
                            "type": "function",
                            "function": {"name": "now", "arguments": "{}"},
                        }
                    ],
                },
                {"role": "tool", "tool_call_id": "c", "content": [{"type": "text", "text": "12"}]},
            ],
            "tools": [NOW],
        },
    ],
    ids="-".join,
)
@pytest.mark.parametrize("model", ["counter", REAL])
def test_requests_of_real_clients_are_taken(http, model, fields):
    asked = {"model": model, "messages": hi(), "max_tokens": 4, **fields}
    answer = http.post(URL, json=asked)
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("name", ["nope", "short"])
def test_a_draft_model_that_cannot_draft_is_refused_by_its_field(http, name):
    answer = ask(http, REAL, draft_model=name)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "draft_model"


@pytest.mark.parametrize("named", [{"type": "function", "function": {"name": "now"}}, "required"])
def test_tool_choice_is_followed(http, named):
    (choice,) = ask(http, tools=[WEATHER, NOW], tool_choice=named, max_tokens=400).json()["choices"]
    assert choice["message"]["tool_calls"]
    if named != "required":
        assert {call["function"]["name"] for call in choice["message"]["tool_calls"]} == {"now"}
