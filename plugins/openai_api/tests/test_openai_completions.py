"""Plain completions: prompts of every form, echo, the older logprobs."""

import json

import openai
import pytest
from lmx_openai_api.rendering_completion import CompletionRendering

from lmx_kernel.dialect.collected import CollectedAnswer
from lmx_kernel.errors import ContextOverflowError, EngineFailedError, QueueFullError
from lmx_kernel.types import Finished, TextDelta, TextPrompt, TokenPrompt, Usage

MODEL = "acme/Tiny-1B"


def parrot(answer):
    """Answer each candidate with the prompt and the candidate's number."""
    prompt = answer.request.prompt
    text = prompt.text if isinstance(prompt, TextPrompt) else str(list(prompt.tokens))
    answer.admit(2)
    for index in range(answer.request.candidates):
        answer.receive(TextDelta(index, f"{text}{index}", (1,)))
        answer.receive(Finished(index, "stop"))
    answer.end("ok")


async def test_the_sdk_parses_every_field(api):
    whole = await api.sdk.completions.create(model=MODEL, prompt="Say")
    assert whole.id.startswith("cmpl-")
    assert whole.object == "text_completion"
    (choice,) = whole.choices
    assert (choice.index, choice.text, choice.finish_reason) == (0, "Hello", "stop")
    assert choice.logprobs is None
    assert whole.usage.total_tokens == 10
    assert api.kernel.request.prompt == TextPrompt("Say")


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a", [TextPrompt("a")]),
        (["a", "b"], [TextPrompt("a"), TextPrompt("b")]),
        ([1, 2], [TokenPrompt((1, 2))]),
        ([[1, 2], [3]], [TokenPrompt((1, 2)), TokenPrompt((3,))]),
    ],
)
async def test_forms_of_prompts(api, prompt, expected):
    assert (await api.complete(prompt=prompt)).status_code == 200
    assert [answer.request.prompt for answer in api.kernel.answers] == expected


@pytest.mark.parametrize("stream", [False, True])
async def test_choices_are_numbered_by_prompt_then_candidate(api, chunks, stream):
    api.kernel.play = parrot
    answer = await api.complete(prompt=["a", "b"], n=2, stream=stream)
    texts = ["", "", "", ""]
    objects = chunks(answer.text) if stream else [answer.json()]
    for choice in (choice for found in objects for choice in found["choices"]):
        texts[choice["index"]] += choice["text"]
    assert texts == ["a0", "a1", "b0", "b1"]


async def test_usage_adds_up_over_prompts(api, chunks):
    api.kernel.play = parrot
    fields = {"prompt": ["a", "b"], "n": 2}
    usage = (await api.complete(**fields)).json()["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (4, 4)
    options = {"stream": True, "stream_options": {"include_usage": True}}
    found = chunks((await api.complete(**fields, **options)).text)
    assert found[-1]["usage"] == usage


async def test_logits_processors_are_named_with_their_options(api):
    await api.complete(
        prompt=["a", "b"], logits_processors={"a": {}, "b": {"x": 1}}, lmx_reproducible=True
    )
    assert all(answer.request.reproducible for answer in api.kernel.answers)
    asked = [answer.request.logits_processors for answer in api.kernel.answers]
    assert asked == [{"a": {}, "b": {"x": 1}}] * 2


async def test_a_stream_has_text_then_a_reason(api, chunks):
    found = chunks((await api.complete(stream=True)).text)
    choices = [chunk["choices"][0] for chunk in found]
    assert [choice["text"] for choice in choices] == ["Hel", "lo", ""]
    assert [choice["finish_reason"] for choice in choices] == [None, None, "stop"]
    assert {chunk["object"] for chunk in found} == {"text_completion"}


async def test_the_sdk_reads_a_stream(api):
    # its types deny that a chunk has no finish_reason yet, so it must not be strict here
    async with openai.AsyncOpenAI(base_url=api.sdk.base_url, api_key="any") as sdk:
        stream = await sdk.completions.create(model=MODEL, prompt=["a", "b"], stream=True)
        chunks = [chunk.choices[0] async for chunk in stream]
    texts = ["", ""]
    for choice in chunks:
        texts[choice.index] += choice.text
    assert texts == ["Hello", "Hello"]


@pytest.mark.parametrize("stream", [False, True])
async def test_echo_repeats_the_prompt(api, chunks, stream):
    answer = await api.complete(prompt=["a ", "b "], n=1, echo=True, stream=stream)
    texts = ["", ""]
    objects = chunks(answer.text) if stream else [answer.json()]
    for choice in (choice for found in objects for choice in found["choices"]):
        texts[choice["index"]] += choice["text"]
    assert texts == ["a Hello", "b Hello"]


async def test_logprobs_in_the_older_shape(api):
    whole = await api.sdk.completions.create(model=MODEL, prompt="x", logprobs=2)
    logprobs = whole.choices[0].logprobs
    assert logprobs.tokens == ["Hel", "l", "o"]
    assert logprobs.token_logprobs == [-0.5, -0.5, -0.5]
    assert logprobs.top_logprobs[0] == {"Hel": -0.5, "No": -3.0}
    assert logprobs.text_offset == [0, 3, 4]
    assert api.kernel.request.logprobs == 2


async def test_offsets_go_on_through_a_stream(api, chunks):
    found = chunks((await api.complete(stream=True, logprobs=0)).text)
    offsets = [(chunk["choices"][0]["logprobs"] or {}).get("text_offset") for chunk in found]
    assert offsets == [[0], [3, 4], None]


def test_offsets_count_characters_not_bytes(logprob):
    rendering = CompletionRendering(with_logprobs=True)
    pieces = [logprob(piece) for piece in (b"\xe2\x82", b"\xac", b"x")]
    logprobs = rendering.whole(0, CollectedAnswer("stop", logprobs=pieces))["logprobs"]
    assert logprobs["text_offset"] == [0, 0, 1]
    assert logprobs["tokens"] == ["bytes:\\xe2\\x82", "bytes:\\xac", "x"]


def test_usage_of_several_answers_has_the_times_of_the_slowest():
    quick, slow, waiting = (
        Usage(
            prompt_tokens=2,
            cached_tokens=1,
            completion_tokens=tokens,
            queue_s=queue_s,
            first_token_s=first_token_s,
            total_s=total_s,
        )
        for tokens, queue_s, first_token_s, total_s in [
            (5, 0.1, 0.2, 2.0),
            (7, 0.3, 0.9, 1.5),
            (0, 0.2, None, 1.0),
        ]
    )
    joined = Usage.joined([quick, slow, waiting])
    assert (joined.prompt_tokens, joined.cached_tokens, joined.completion_tokens) == (6, 3, 12)
    assert (joined.queue_s, joined.first_token_s, joined.total_s) == (0.3, 0.9, 2.0)
    assert Usage.joined([waiting]) == waiting


# --- several prompts share their fate ---


@pytest.mark.parametrize("stream", [False, True])
async def test_a_refusal_of_one_prompt_is_that_of_all(api, stream):
    def play(answer):
        if len(api.kernel.answers) == 1:
            answer.admit(1)
        else:
            answer.end("context_length_exceeded", ContextOverflowError("too long", param="prompt"))

    api.kernel.play = play
    with pytest.raises(openai.BadRequestError, match="too long"):
        await api.sdk.completions.create(model=MODEL, prompt=["a", "b"], stream=stream)
    await api.kernel.closed.wait()


async def test_a_failure_that_nobody_foresaw_ends_all(api):
    def play(answer):
        answer.next = fail if len(api.kernel.answers) == 2 else answer.next

    async def fail(timeout_s=None):
        raise RuntimeError("a fault in the server")

    api.kernel.play = play
    answer = await api.complete(prompt=["a", "b"])
    assert answer.status_code == 500
    await api.kernel.closed.wait()


async def test_a_refusal_of_the_second_prompt_closes_the_first(api):
    def play(answer):
        answer.admit(1)
        api.kernel.refusal = QueueFullError("full")

    api.kernel.play = play
    answer = await api.complete(prompt=["a", "b"])
    assert answer.json()["error"]["code"] == "queue_full"
    assert api.kernel.closed.is_set()


async def test_a_late_failure_of_one_prompt_ends_all(api, frames):
    def play(answer):
        answer.admit(1)
        answer.receive(TextDelta(0, "x", (1,)))
        if len(api.kernel.answers) == 2:
            answer.end("engine_failed", EngineFailedError("not finite"))

    api.kernel.play = play
    answer = await api.complete(prompt=["a", "b"], stream=True)
    assert json.loads(frames(answer.text)[-1])["error"]["message"] == "not finite"
    assert "[DONE]" not in answer.text
    await api.kernel.closed.wait()


async def test_a_client_that_leaves_ends_the_answers_to_all_prompts(api):
    api.kernel.play = lambda answer: answer.admit(1)
    async with api.open("completions", {"model": MODEL, "prompt": ["a", "b"]}):
        pass
    await api.kernel.closed.wait()
    assert [answer.outcome for answer in api.kernel.answers] == ["cancelled", "cancelled"]


async def test_a_prompt_whose_load_takes_long_does_not_hold_up_the_headers(api, chunks):
    def play(answer):
        if len(api.kernel.answers) == 1:
            parrot(answer)

    api.kernel.play = play
    async with api.open("completions", {"model": MODEL, "prompt": ["a", "b"]}) as answer:
        assert answer.status_code == 200
        parrot(api.kernel.answers[1])
        text = "".join([piece async for piece in answer.aiter_text()])
    assert sorted(c["choices"][0]["text"] for c in chunks(text)) == ["", "", "a0", "b0"]
