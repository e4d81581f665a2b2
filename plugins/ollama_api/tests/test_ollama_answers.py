"""Answers: whole, and line by line."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime

import pytest

from lmx_kernel.errors import ContextOverflowError, EngineFailedError, QueueFullError
from lmx_kernel.testing.stub_kernel import MODEL
from lmx_kernel.types import (
    Finished,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallStarted,
)

FIGURES = {
    "total_duration",
    "load_duration",
    "prompt_eval_count",
    "prompt_eval_duration",
    "eval_count",
    "eval_duration",
}


def think(answer):
    """Think, then speak."""
    answer.admit(7)
    answer.start()
    answer.receive(ReasoningDelta(0, "Who is it?"))
    answer.receive(TextDelta(0, "Hello", (1,)))
    answer.receive(Finished(0, "stop"))
    answer.end("ok")


def call(*arguments, reason="tool_calls"):
    """Return a play with text and calls; the arguments of each come in pieces of two letters."""

    def play(answer):
        answer.admit(7)
        answer.start()
        answer.receive(TextDelta(0, "A moment.", (1,)))
        for index, text in enumerate(arguments):
            answer.receive(ToolCallStarted(0, index, f"id{index}", "weather"))
            for at in range(0, len(text), 2):
                answer.receive(TextDelta(0, "", (2,)))
                answer.receive(ToolCallDelta(0, index, text[at : at + 2]))
        answer.receive(Finished(0, reason))
        answer.end("ok")

    return play


def end(reason):
    def play(answer):
        answer.admit(7)
        answer.start()
        answer.receive(TextDelta(0, "Hello", (1,)))
        answer.receive(Finished(0, reason))
        answer.end("ok")

    return play


def check_head(line):
    assert line["model"] == MODEL
    assert line["created_at"].endswith("Z")
    age = datetime.now(UTC) - datetime.fromisoformat(line["created_at"])
    assert abs(age.total_seconds()) < 60


def check_end(line, *, reason="stop"):
    assert (line["done"], line["done_reason"]) == (True, reason)
    assert set(line) >= FIGURES
    assert all(isinstance(line[name], int) and line[name] >= 0 for name in FIGURES)
    parts = ("load_duration", "prompt_eval_duration", "eval_duration")
    assert abs(sum(line[name] for name in parts) - line["total_duration"]) < 10


async def test_a_stream_is_what_comes_if_nothing_is_said(api):
    *lines, last = await api.lines()
    assert [line["message"] for line in lines] == [
        {"role": "assistant", "content": "Hel"},
        {"role": "assistant", "content": "lo"},
    ]
    assert all(set(line) == {"model", "created_at", "message", "done"} for line in lines)
    assert not any(line["done"] for line in lines)
    for line in (*lines, last):
        check_head(line)
    check_end(last)
    assert last["message"] == {"role": "assistant", "content": ""}
    assert (last["prompt_eval_count"], last["eval_count"]) == (7, 3)


async def test_a_prompt_is_answered_in_lines(api):
    *lines, last = await api.lines("generate", stream=True)
    assert [line["response"] for line in lines] == ["Hel", "lo"]
    check_end(last)
    assert last["response"] == ""


async def test_whole_answers(api):
    for path, fields in (("chat", ["message"]), ("generate", ["response"])):
        answer = await getattr(api, path)(stream=False)
        assert answer.headers["content-type"] == "application/json"
        whole = answer.json()
        check_head(whole)
        check_end(whole)
        assert set(whole) == {"model", "created_at", "done", "done_reason", *FIGURES, *fields}
    assert whole["response"] == "Hello"


async def test_the_model_is_called_as_the_client_called_it(api):
    for stream in (True, False):
        answer = await api.chat(model=f"{MODEL.lower()}:latest", stream=stream)
        for line in answer.text.splitlines():
            assert json.loads(line)["model"] == f"{MODEL.lower()}:latest"


async def test_thinking_is_apart(api):
    api.kernel.play = think
    thought, said, _ = await api.lines(think=True)
    assert thought["message"] == {"role": "assistant", "content": "", "thinking": "Who is it?"}
    assert said["message"] == {"role": "assistant", "content": "Hello"}
    whole = (await api.chat(stream=False)).json()["message"]
    assert whole == {"role": "assistant", "content": "Hello", "thinking": "Who is it?"}
    thought, said, _ = await api.lines("generate")
    assert (thought["response"], thought["thinking"]) == ("", "Who is it?")
    assert "thinking" not in said
    whole = (await api.generate(stream=False)).json()
    assert (whole["response"], whole["thinking"]) == ("Hello", "Who is it?")


async def test_each_call_comes_whole(api):
    api.kernel.play = call('{"city": "Rome"}', "", '{"city": "Oslo"}')
    text, *lines, last = await api.lines()
    assert text["message"]["content"] == "A moment."
    places = [{"city": "Rome"}, {}, {"city": "Oslo"}]
    calls = [
        {"id": f"id{index}", "function": {"index": index, "name": "weather", "arguments": place}}
        for index, place in enumerate(places)
    ]
    assert [line["message"]["tool_calls"] for line in lines] == [[one] for one in calls]
    check_end(last)
    whole = (await api.chat(stream=False)).json()
    assert whole["message"]["tool_calls"] == calls
    check_end(whole)


@pytest.mark.parametrize("arguments", ['{"city": "Ro', "[1]", "nonsense"])
async def test_a_call_that_is_none_is_told_as_text(api, arguments):
    api.kernel.play = call('{"city": "Rome"}', arguments, reason="length")
    *_, good, bad, last = await api.lines()
    assert good["message"]["tool_calls"][0]["function"]["arguments"] == {"city": "Rome"}
    assert bad["message"] == {"role": "assistant", "content": f"weather({arguments})"}
    check_end(last, reason="length")
    whole = (await api.chat(stream=False)).json()["message"]
    assert len(whole["tool_calls"]) == 1
    assert whole["content"] == f"A moment.weather({arguments})"


@pytest.mark.parametrize("reason", ["stop", "length"])
async def test_why_it_ended(api, reason):
    api.kernel.play = end(reason)
    assert (await api.lines())[-1]["done_reason"] == reason
    assert (await api.generate(stream=False)).json()["done_reason"] == reason


@pytest.mark.parametrize("path", ["chat", "generate"])
async def test_logprobs(api, path):
    first, second, last = await api.lines(path, logprobs=True, top_logprobs=2)
    (token,) = first["logprobs"]
    assert (token["token"], token["logprob"], token["bytes"]) == ("Hel", -0.5, [72, 101, 108])
    assert [one["token"] for one in token["top_logprobs"]] == ["Hel", "No"]
    assert [one["token"] for one in second["logprobs"]] == ["l", "o"]
    assert "logprobs" not in last
    whole = (await getattr(api, path)(stream=False, logprobs=True)).json()
    assert [one["token"] for one in whole["logprobs"]] == ["Hel", "l", "o"]
    assert "logprobs" not in (await getattr(api, path)(stream=False)).json()


# --- failures ---


async def test_a_refusal_keeps_its_status(api):
    for error in (QueueFullError("full"), ContextOverflowError("too long")):
        api.kernel.refusal = error
        for stream in (True, False):
            answer = await api.chat(stream=stream)
            assert answer.status_code == error.status
            assert answer.json() == {"error": error.message}


async def test_a_failure_in_a_stream_is_its_last_line(api):
    def fail(answer):
        answer.admit(7)
        answer.start()
        answer.receive(TextDelta(0, "Hel", (1,)))
        answer.end("engine_failed", EngineFailedError("not finite"))

    api.kernel.play = fail
    first, last = await api.lines()
    assert first["message"]["content"] == "Hel"
    assert last == {"error": "not finite"}
    answer = await api.chat(stream=False)
    assert (answer.status_code, answer.json()) == (502, {"error": "not finite"})


async def test_a_silence_is_broken_by_lines_that_say_nothing(api):
    started = asyncio.Event()

    def wait(answer):
        answer.admit(7)
        answer.start()
        started.set()

    api.kernel.play = wait
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}]}
    async with api.http.stream("POST", "/api/chat", json=body) as answer:
        lines = answer.aiter_lines()
        for _ in range(2):
            line = json.loads(await anext(lines))
            assert line["message"] == {"role": "assistant", "content": ""}
            assert line["done"] is False
        running = api.kernel.answers[0]
        hello_again(running)
        said = [json.loads(line) async for line in lines]
    assert "".join(line["message"]["content"] for line in said) == "Hello"
    assert said[-1]["done"]


def hello_again(answer):
    answer.receive(TextDelta(0, "Hello", (1,)))
    answer.receive(Finished(0, "stop"))
    answer.end("ok")


async def test_a_client_that_leaves_stops_its_answer(api):
    api.kernel.play = lambda answer: answer.admit(7)
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}]}
    async with api.http.stream("POST", "/api/chat", json=body):
        pass
    await api.kernel.closed.wait()


# --- how long the model stays ---


@pytest.mark.parametrize(
    ("keep_alive", "ttl_s"),
    [
        ("5m", 300),
        ("1h30m", 5400),
        ("1.5s", 1.5),
        ("250ms", 0.25),
        (60, 60),
        (0.5, 0.5),
        ("60", 60),
        (0, 0),
        ("0", 0),
        ("0s", 0),
        (-1, None),
        ("-1", None),
        ("-1m", None),
        (1e300, 100 * 365 * 86_400),
    ],
)
async def test_how_long_a_model_stays_after_an_answer(api, keep_alive, ttl_s):
    await api.chat(keep_alive=keep_alive)
    await api.generate(keep_alive=keep_alive, stream=False)
    await api.post("embed", {"model": MODEL, "input": "Hi", "keep_alive": keep_alive})
    assert api.kernel.calls == [("keep", MODEL, pytest.approx(ttl_s))] * 3


async def test_without_a_word_it_stays_as_it_was(api):
    await api.chat()
    await api.chat(keep_alive="")
    assert api.kernel.calls == []
