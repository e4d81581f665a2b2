"""Streams of chat completions, frame by frame."""

import asyncio
import json

import openai
import pytest
from lmx_openai_api.rendering import Envelope
from lmx_openai_api.rendering_chat import ChatRendering
from lmx_openai_api.sse import ChunkWriter

from lmx_kernel.errors import EngineCrashedError, ModelUnusableError
from lmx_kernel.http.sse import AnswerStream
from lmx_kernel.runtime.answer import LiveAnswer
from lmx_kernel.testing.harness import ask
from lmx_kernel.testing.stub_kernel import FINGERPRINT, hello
from lmx_kernel.types import Finished, PromptProgress, TextDelta

MODEL = "acme/Tiny-1B"
HI = [{"role": "user", "content": "Hi"}]


def make_stream(answer, heartbeat_s=10.0, include_usage=False):
    envelope = Envelope(answer, ChatRendering(False))
    writer = ChunkWriter(envelope=envelope, choices=1, include_usage=include_usage)
    return AnswerStream(answer, writer, heartbeat_s).frames()


async def test_the_frames_of_a_stream(api, chunks):
    answer = await api.chat(stream=True)
    assert answer.headers["content-type"] == "text/event-stream"
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.headers["x-accel-buffering"] == "no"
    found = chunks(answer.text)
    assert [chunk["choices"][0]["delta"] for chunk in found] == [
        {"role": "assistant", "content": ""},
        {"content": "Hel"},
        {"content": "lo"},
        {},
    ]
    reasons = [chunk["choices"][0]["finish_reason"] for chunk in found]
    assert reasons == [None, None, None, "stop"]


async def test_all_chunks_share_their_envelope(api, chunks):
    found = chunks((await api.chat(stream=True, stream_options={"include_usage": True})).text)
    names = ("id", "object", "created", "model", "system_fingerprint")
    assert len({tuple(chunk[name] for name in names) for chunk in found}) == 1
    assert found[0]["object"] == "chat.completion.chunk"
    assert 0 < found[0]["created"] < 2**32


async def test_the_fingerprint_is_null_until_the_model_is_loaded():
    answer = LiveAnswer(ask(MODEL), MODEL)
    stream = make_stream(answer)
    opening = await anext(stream)
    hello(answer)
    frames = [opening, *[frame async for frame in stream]]
    found = [json.loads(frame.split(b"\n\n")[0][len("data: ") :]) for frame in frames[:2]]
    assert [chunk["system_fingerprint"] for chunk in found] == [None, FINGERPRINT]


async def test_usage_comes_last_and_only_when_asked_for(api, chunks):
    assert not any("usage" in chunk for chunk in chunks((await api.chat(stream=True)).text))
    found = chunks((await api.chat(stream=True, stream_options={"include_usage": True})).text)
    assert [chunk["choices"] == [] for chunk in found] == [False] * 4 + [True]
    assert found[-1]["usage"] == {
        "prompt_tokens": 7,
        "completion_tokens": 3,
        "total_tokens": 10,
        "prompt_tokens_details": {"cached_tokens": 4},
        "completion_tokens_details": {
            "reasoning_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


async def test_every_choice_has_one_role_and_one_finish(api, chunks):
    found = [chunk["choices"][0] for chunk in chunks((await api.chat(stream=True, n=3)).text)]
    assert [c["index"] for c in found if c["delta"].get("role")] == [0, 1, 2]
    assert [c["index"] for c in found if c["finish_reason"]] == [0, 1, 2]
    for index in range(3):
        texts = [c["delta"].get("content", "") for c in found if c["index"] == index]
        assert "".join(texts) == "Hello"


async def test_logprobs_wait_for_text(api, chunks):
    found = chunks((await api.chat(stream=True, logprobs=True, top_logprobs=1)).text)
    logprobs = [chunk["choices"][0]["logprobs"] for chunk in found]
    tokens = [entry and [e["token"] for e in entry["content"]] for entry in logprobs]
    assert tokens == [None, ["Hel"], ["l", "o"], None]


async def test_logprobs_of_the_last_tokens_are_not_lost(api, chunks, logprob):
    def play(answer):
        answer.admit(1)
        answer.receive(TextDelta(0, "", (1,), (logprob(b"x"),)))
        answer.receive(Finished(0, "stop"))
        answer.end("ok")

    api.kernel.play = play
    last = chunks((await api.chat(stream=True, logprobs=True)).text)[-1]["choices"][0]
    assert [entry["token"] for entry in last["logprobs"]["content"]] == ["x"]


async def test_the_sdk_accumulates_a_stream(api):
    async with api.sdk.chat.completions.stream(
        model=MODEL, messages=HI, n=2, logprobs=True, stream_options={"include_usage": True}
    ) as stream:
        whole = await stream.get_final_completion()
    assert [choice.message.content for choice in whole.choices] == ["Hello", "Hello"]
    assert [len(choice.logprobs.content) for choice in whole.choices] == [3, 3]
    assert whole.usage.total_tokens == 13


# --- what goes out when ---


async def test_the_last_frames_are_one_write(api):
    answer = LiveAnswer(ask(MODEL), MODEL)
    api.kernel.play(answer)
    *_, last = [write async for write in make_stream(answer, include_usage=True)]
    assert last.count(b"data: ") == 3
    assert b'"finish_reason":"stop"' in last
    assert last.endswith(b"data: [DONE]\n\n")


async def test_a_cold_model_does_not_hold_up_the_headers(api, chunks):
    """Undici gives up after 300 s without headers; heartbeats follow until the model is there."""
    api.kernel.play = lambda answer: None
    async with api.open("chat/completions", {"model": MODEL, "messages": HI}) as answer:
        assert answer.status_code == 200
        text = ""
        async for piece in answer.aiter_text():
            text += piece
            if text.count(": keep-alive\n\n") >= 2 and not api.kernel.closed.is_set():
                api.kernel.closed.set()
                api.hello(api.kernel.answers[0])
    assert text.index('"role":"assistant"') < text.index(": keep-alive") < text.index("Hel")
    assert len(chunks(text)) == 4


async def test_events_that_say_nothing_do_not_put_off_a_heartbeat():
    class Busy(LiveAnswer):
        async def next(self, timeout_s=None):
            await asyncio.sleep(0)
            return PromptProgress(0, 1, 9, 0)

    stream = make_stream(Busy(ask(MODEL), MODEL), heartbeat_s=0.01)
    await anext(stream)
    assert await anext(stream) == b": keep-alive\n\n"
    assert await anext(stream) == b": keep-alive\n\n"
    await stream.aclose()


async def test_the_first_chunk_does_not_wait_for_text(api):
    api.kernel.play = lambda answer: answer.admit(1)
    async with api.open("chat/completions", {"model": MODEL, "messages": HI}) as answer:
        first = await anext(answer.aiter_text())
    assert '"delta":{"role":"assistant","content":""}' in first


# --- failures ---


def fail_after_text(answer):
    answer.admit(1)
    answer.receive(TextDelta(0, "Hel", (1,)))
    answer.end("engine_crashed", EngineCrashedError("the engine died"))


async def test_a_late_failure_is_one_frame_and_no_done(api, frames):
    api.kernel.play = fail_after_text
    answer = await api.chat(stream=True, stream_options={"include_usage": True})
    assert answer.status_code == 200
    *_, text, last = frames(answer.text)
    assert "Hel" in text
    assert json.loads(last) == {
        "error": {
            "message": "the engine died",
            "type": "server_error",
            "param": None,
            "code": "engine_crashed",
        }
    }
    assert "[DONE]" not in answer.text


async def test_a_failure_does_not_swallow_what_came_before(api, frames):
    def play(answer):
        answer.admit(1)
        answer.receive(Finished(0, "stop"))
        answer.end("engine_crashed", EngineCrashedError("the engine died"))

    api.kernel.play = play
    *_, finish, error = frames((await api.chat(stream=True, n=2)).text)
    assert json.loads(finish)["choices"][0]["finish_reason"] == "stop"
    assert "the engine died" in error


async def test_the_sdk_raises_a_late_failure(api):
    api.kernel.play = fail_after_text
    stream = await api.sdk.chat.completions.create(model=MODEL, messages=HI, stream=True)
    with pytest.raises(openai.APIError, match="the engine died"):
        [chunk async for chunk in stream]


async def test_a_load_that_fails_after_the_headers_is_a_frame(api, frames):
    api.kernel.play = lambda answer: None
    async with api.open("chat/completions", {"model": MODEL, "messages": HI}) as answer:
        api.kernel.answers[0].end("model_unusable", ModelUnusableError("a damaged file"))
        last = frames("".join([piece async for piece in answer.aiter_text()]))[-1]
    assert json.loads(last)["error"]["code"] == "model_unusable"


# --- clients that leave ---


async def test_a_client_that_leaves_ends_the_answer(api):
    api.kernel.play = lambda answer: answer.admit(1)
    async with api.open("chat/completions", {"model": MODEL, "messages": HI}) as answer:
        await anext(answer.aiter_text())
        assert not api.kernel.closed.is_set()
    await api.kernel.closed.wait()


async def test_a_client_that_leaves_before_admission_ends_the_answer(api, surface):
    api.kernel.play = lambda answer: None
    body = {"model": MODEL, "messages": HI, "stream": True}
    async with api.leaving("chat/completions", body):
        await api.kernel.asked.wait()
    await api.kernel.closed.wait()


async def test_a_stream_that_never_starts_ends_its_answer(surface, kernel, start_only):
    """Falcon does not touch the stream when the headers cannot be sent."""
    kernel.play = lambda answer: answer.admit(1)
    task = asyncio.create_task(start_only({"model": MODEL, "messages": HI, "stream": True}))
    await kernel.asked.wait()
    with pytest.raises(ConnectionResetError):
        await task
    await kernel.closed.wait()


async def test_a_stream_that_ended_well_closes_nothing(api):
    await api.chat(stream=True)
    assert not api.kernel.closed.is_set()
