"""Texts to vectors, and prompts that are only counted, through real workers and a fake model."""

from __future__ import annotations

import asyncio
import math
import os
import signal
import zlib

import pytest

from lmx_kernel import errors
from lmx_kernel.events import ModelUnloaded, RequestFinished, WorkerCrashed
from lmx_kernel.runtime.instance import State
from lmx_kernel.testing.fake_model import FakeModel
from lmx_kernel.testing.harness import ask, running_kernel
from lmx_kernel.types import (
    EmbeddingPrompt,
    EncodedPrompt,
    GenerationRequest,
    LoadOverrides,
    TextPrompt,
    TokenPrompt,
)

EMBEDS = FakeModel(embeds=True)
SLOW = FakeModel(embeds=True, tokens_per_s=50)


def texts(*inputs):
    return [TextPrompt(text) for text in inputs]


def vector_of(text):
    """What the fake model makes of a text."""
    angle = zlib.crc32(str(tuple(text.encode())).encode())
    return pytest.approx([math.cos(angle), math.sin(angle)])


def assert_vectors(found, inputs):
    assert len(found.vectors) == len(inputs)
    for vector, text in zip(found.vectors, inputs, strict=True):
        assert list(vector) == vector_of(text)


async def until(condition):
    while not condition():
        await asyncio.sleep(0.005)


async def stop(pid):
    """Stop a worker, and return when it has stopped."""
    os.kill(pid, signal.SIGSTOP)
    await asyncio.to_thread(os.waitid, os.P_PID, pid, os.WSTOPPED | os.WNOWAIT)


async def test_texts_and_tokens_become_vectors_in_their_order(tmp_path):
    async with running_kernel(tmp_path, {"m": EMBEDS}) as stage:
        words = [f"word {number} " * (number % 40 + 1) for number in range(200)]
        found = await stage.kernel.embed("m", texts(*words))
        assert_vectors(found, words)
        assert found.model == "m"
        assert found.prompt_tokens == sum(map(len, words))
        tokens = await stage.kernel.embed("m", [TokenPrompt((104, 105)), TextPrompt("ho")])
        assert_vectors(tokens, ["hi", "ho"])
        assert [event.outcome for event in stage.seen(RequestFinished)] == ["ok", "ok"]


async def test_a_model_does_what_it_is_made_for(tmp_path):
    async with running_kernel(tmp_path, {"embedder": EMBEDS, "writer": FakeModel()}) as stage:
        with pytest.raises(errors.InvalidRequestError, match="writer makes no embeddings"):
            await stage.kernel.embed("writer", texts("hi"))
        for wrong in (ask("embedder"), GenerationRequest(model="embedder", prompt=TextPrompt("a"))):
            with pytest.raises(errors.InvalidRequestError, match="makes embeddings only") as caught:
                await stage.kernel.generate(wrong)
            assert caught.value.param == "model"
        assert not stage.assembly.lifecycle.instances  # nothing was loaded for it


@pytest.mark.parametrize(
    ("inputs", "problem", "told"),
    [
        ([], errors.InvalidRequestError, "nothing to embed"),
        (texts("fine", ""), errors.InvalidRequestError, "input 1 is empty"),
        ([TokenPrompt((1 << 30,))], errors.InvalidRequestError, "not in the vocabulary"),
        (texts("fine", "x" * 5000), errors.ContextOverflowError, "input 1 has 5000 tokens"),
    ],
)
async def test_wrong_inputs_are_refused(tmp_path, inputs, problem, told):
    async with running_kernel(tmp_path, {"m": EMBEDS}) as stage:
        with pytest.raises(problem, match=told) as caught:
            await stage.kernel.embed("m", inputs)
        assert caught.value.param == "input"
        assert_vectors(await stage.kernel.embed("m", texts("fine")), ["fine"])


async def test_a_crash_is_survived_once(tmp_path):
    scripts = {
        "once": FakeModel(embeds=True, crash_at=5),
        "always": FakeModel(embeds=True, poison="bad"),
    }
    async with running_kernel(tmp_path, scripts) as stage:
        words = [str(number) for number in range(20)]
        assert_vectors(await stage.kernel.embed("once", texts(*words)), words)
        assert [crash.resumed for crash in stage.seen(WorkerCrashed)] == [1]
        with pytest.raises(errors.EngineCrashedError, match="crashed twice"):
            await stage.kernel.embed("always", texts("good", "bad"))
        assert_vectors(await stage.kernel.embed("always", texts("good")), ["good"])


async def test_a_killed_worker_is_replaced_and_asked_again(tmp_path):
    async with running_kernel(tmp_path, {"m": SLOW}) as stage:
        words = [str(number) for number in range(30)]
        asked = asyncio.ensure_future(stage.kernel.embed("m", texts(*words)))
        await until(lambda: "m" in stage.assembly.lifecycle.instances)
        await until(lambda: stage.instance("m").requests.running)
        os.kill(stage.instance("m").pid, signal.SIGKILL)
        assert_vectors(await asked, words)


async def test_one_bad_text_fails_its_request_alone(tmp_path):
    async with running_kernel(tmp_path, {"m": FakeModel(embeds=True, sour="bad")}) as stage:
        first, second, third = await asyncio.gather(
            stage.kernel.embed("m", texts("a", "b")),
            stage.kernel.embed("m", texts("c", "bad", "d")),
            stage.kernel.embed("m", texts("e")),
            return_exceptions=True,
        )
        assert isinstance(second, errors.EngineFailedError)
        assert_vectors(first, ["a", "b"])
        assert_vectors(third, ["e"])


async def test_a_small_request_does_not_wait_for_a_large_one(tmp_path):
    async with running_kernel(tmp_path, {"m": SLOW}) as stage:
        many = [f"{number:0100}" for number in range(200)]  # 40 batches
        large = asyncio.ensure_future(stage.kernel.embed("m", texts(*many)))
        await until(lambda: "m" in stage.assembly.lifecycle.instances)
        await until(lambda: stage.instance("m").requests.running)
        assert_vectors(await stage.kernel.embed("m", texts("few")), ["few"])
        assert not large.done()
        large.cancel()
        await asyncio.wait({large})


async def test_cancelling_gives_up_the_work(tmp_path):
    async with running_kernel(tmp_path, {"m": SLOW}) as stage:
        asked = asyncio.ensure_future(stage.kernel.embed("m", texts(*map(str, range(100_000)))))
        await until(lambda: "m" in stage.assembly.lifecycle.instances)
        await until(lambda: stage.instance("m").requests.running)
        asked.cancel()
        await asyncio.wait({asked})
        assert asked.cancelled()
        assert stage.instance("m").requests.is_idle
        assert_vectors(await stage.kernel.embed("m", texts("next")), ["next"])
        assert [event.outcome for event in stage.seen(RequestFinished)] == ["cancelled", "ok"]


async def test_what_cannot_begin_in_time_is_refused(tmp_path):
    scripts = {"m": FakeModel(embeds=True, load_hang=True)}
    async with running_kernel(tmp_path, scripts, "[queue]\nmax_wait_s = 0.2\n") as stage:
        text = GenerationRequest(model="m", prompt=TextPrompt("hi"))
        for asked in (stage.kernel.embed("m", texts("hi")), stage.kernel.count_tokens(text)):
            with pytest.raises(errors.UnavailableError, match="could not begin within"):
                await asked
        assert stage.instance("m").requests.is_idle


async def test_a_model_that_embeds_is_not_evicted_for_another(tmp_path):
    scripts = {
        "m": FakeModel(embeds=True, tokens_per_s=10, memory_bytes=60 << 20),
        "other": FakeModel(memory_bytes=60 << 20, answer_tokens=3),
    }
    config = "[memory]\nbudget_bytes = 100000000\n[models]\nturn_s = 0\nhang_timeout_s = 100\n"
    async with running_kernel(tmp_path, scripts, config) as stage:
        words = [str(number) for number in range(30)]
        await stage.kernel.load("m", LoadOverrides())
        pid = stage.instance("m").pid
        await stop(pid)  # it cannot finish before its memory is wanted
        asked = asyncio.ensure_future(stage.kernel.embed("m", texts(*words)))
        await until(lambda: not stage.instance("m").requests.is_idle)
        with await stage.kernel.generate(ask("other")) as answer:
            await until(lambda: stage.instance("m").state is State.DRAINING)
            os.kill(pid, signal.SIGCONT)
            async for _ in answer:
                assert asked.done()
        assert_vectors(await asked, words)
        assert [(event.model, event.reason) for event in stage.seen(ModelUnloaded)] == [
            ("m", "turn")
        ]


async def test_prompts_are_counted_without_an_answer(tmp_path):
    async with running_kernel(tmp_path, {"m": FakeModel(context_length=100), "e": EMBEDS}) as stage:
        kernel = stage.kernel
        assert await kernel.count_tokens(ask("m")) == len("user: hello\nassistant:")
        assert await kernel.count_tokens(ask("m", "x" * 500)) == 500 + len("user: \nassistant:")
        text = GenerationRequest(model="e", prompt=TextPrompt("four"))
        assert await kernel.count_tokens(text) == 4
        both = GenerationRequest(model="e", prompt=EmbeddingPrompt(tuple(texts("ab", "cde"))))
        assert await kernel.count_tokens(both) == 5
        with pytest.raises(errors.InvalidRequestError, match="prompt is empty"):
            await kernel.count_tokens(GenerationRequest(model="m", prompt=TextPrompt("")))
        with pytest.raises(errors.ModelNotFoundError):
            await kernel.count_tokens(ask("nope"))
        assert stage.instance("m").requests.is_idle
        assert stage.instance("m").stats is None  # the engine never ran
        assert not stage.seen(RequestFinished)  # nothing was computed


async def test_a_prompt_is_returned_as_the_model_would_read_it(tmp_path):
    async with running_kernel(tmp_path, {"m": FakeModel(context_length=64), "e": EMBEDS}) as stage:
        long = "x" * 100
        chat = await stage.kernel.encode(ask("m", long))
        assert chat.text == f"user: {long}\nassistant:"
        assert bytes(chat.tokens).decode() == chat.text
        for model in ("m", "e"):
            prompt = TextPrompt("four", is_rendered=True)
            text = await stage.kernel.encode(GenerationRequest(model=model, prompt=prompt))
            assert (text.text, bytes(text.tokens)) == ("four", b"four")
        tokens = GenerationRequest(model="m", prompt=TokenPrompt((104, 105)))
        assert await stage.kernel.encode(tokens) == EncodedPrompt("hi", (104, 105))
        with pytest.raises(errors.InvalidRequestError, match="prompt is empty"):
            await stage.kernel.encode(GenerationRequest(model="m", prompt=TextPrompt("")))
        assert not stage.seen(RequestFinished)


async def test_counting_goes_on_beside_answers_and_after_a_crash(tmp_path):
    async with running_kernel(tmp_path, {"m": FakeModel(tokens_per_s=100)}) as stage:
        with await stage.kernel.generate(ask("m")) as answer:
            await answer.next()
            expected = len("user: hello\nassistant:")
            counts = [stage.kernel.count_tokens(ask("m")) for _ in range(10)]
            assert await asyncio.gather(*counts) == [expected] * 10
            pid = stage.instance("m").pid
            await stop(pid)
            counting = asyncio.ensure_future(stage.kernel.count_tokens(ask("m")))
            await until(lambda: stage.instance("m").requests.waiting)
            os.kill(pid, signal.SIGKILL)
            assert await counting == expected
