"""Whole chat completions: what is understood and what comes back."""

import json
import math

import openai
import pytest

from lmx_kernel.errors import ContextOverflowError, LmxError, QueueFullError
from lmx_kernel.types import (
    ChatPrompt,
    Finished,
    Logprobs,
    Message,
    Priority,
    SamplingRequest,
    Terms,
    TextDelta,
    TextPart,
    TokenLogprob,
)

MODEL = "acme/Tiny-1B"
HI = [{"role": "user", "content": "Hi"}]


async def test_the_sdk_parses_every_field(api):
    whole = await api.sdk.chat.completions.create(model=MODEL, messages=HI)
    assert whole.id.startswith("chatcmpl-")
    assert whole.object == "chat.completion"
    assert 0 < whole.created < 2**32
    assert (whole.model, whole.system_fingerprint) == (MODEL, "fp_0123456789ab")
    (choice,) = whole.choices
    assert choice.message.content == "Hello"
    assert (choice.index, choice.message.role, choice.finish_reason) == (0, "assistant", "stop")
    assert choice.logprobs is None
    usage = whole.usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (7, 3, 10)
    assert usage.prompt_tokens_details.cached_tokens == 4
    assert usage.completion_tokens_details.reasoning_tokens == 0


async def test_keys_that_clients_look_for_are_there_even_if_null(api):
    (choice,) = (await api.chat()).json()["choices"]
    assert choice["logprobs"] is None
    assert choice["message"]["refusal"] is None


async def test_each_candidate_is_a_choice(api):
    whole = await api.sdk.chat.completions.create(model=MODEL, messages=HI, n=3)
    assert [choice.index for choice in whole.choices] == [0, 1, 2]
    assert api.kernel.request.candidates == 3


async def test_the_model_is_named_as_the_catalogue_does(api):
    assert (await api.chat(model="acme/tiny-1b")).json()["model"] == MODEL


async def test_logprobs(api):
    whole = await api.sdk.chat.completions.create(
        model=MODEL, messages=HI, logprobs=True, top_logprobs=2
    )
    content = whole.choices[0].logprobs.content
    assert [entry.token for entry in content] == ["Hel", "l", "o"]
    assert content[0].logprob == -0.5
    assert content[0].bytes == list(b"Hel")
    assert [(top.token, top.logprob) for top in content[1].top_logprobs] == [("l", -2), ("x", -3)]
    assert api.kernel.request.logprobs == 2


async def test_logprobs_without_alternatives(api):
    await api.chat(logprobs=True)
    assert api.kernel.request.logprobs == 0


async def test_logprobs_of_half_a_character_and_of_the_impossible(api):
    def play(answer):
        answer.admit(1)
        entry = Logprobs(TokenLogprob(1, b"\xe2\x82", -math.inf), ())
        answer.receive(TextDelta(0, "x", (1,), (entry,)))
        answer.receive(Finished(0, "length"))
        answer.end("ok")

    api.kernel.play = play
    whole = await api.sdk.chat.completions.create(model=MODEL, messages=HI, logprobs=True)
    (entry,) = whole.choices[0].logprobs.content
    assert entry.token == "\ufffd"
    assert entry.bytes == [0xE2, 0x82]
    assert entry.logprob == -9999
    assert whole.choices[0].finish_reason == "length"


# --- what is asked of the kernel ---


async def test_every_parameter_arrives(api):
    answer = await api.chat(
        temperature=0.5,
        top_p=0.9,
        top_k=7,
        min_p=0.1,
        repetition_penalty=1.1,
        presence_penalty=-1,
        frequency_penalty=2,
        seed=2**63 - 1,
        logit_bias={"5": -100, "6": 1.5},
        max_tokens=9,
        stop=["a", "b"],
    )
    assert answer.status_code == 200
    request = api.kernel.request
    assert request.sampling == SamplingRequest(
        temperature=0.5,
        top_p=0.9,
        top_k=7,
        min_p=0.1,
        repetition_penalty=1.1,
        presence_penalty=-1,
        frequency_penalty=2,
        seed=2**63 - 1,
        logit_bias={5: -100, 6: 1.5},
    )
    assert (request.max_tokens, request.stop) == (9, ("a", "b"))
    assert (await api.chat(top_p=0)).status_code == 200
    assert 0 < api.kernel.answers[-1].request.sampling.top_p < 1e-3


async def test_absent_and_null_are_the_same(api):
    names = (
        "stream stream_options n max_tokens max_completion_tokens stop seed temperature top_p"
        " top_k min_p repeat_penalty repetition_penalty presence_penalty frequency_penalty"
        " logit_bias logprobs top_logprobs response_format tools tool_choice functions"
        " function_call modalities audio prediction web_search_options user parallel_tool_calls"
        " guided_regex guided_grammar guided_json guided_choice structured_outputs json_schema"
        " grammar reasoning_effort reasoning_budget thinking_budget chat_template_kwargs"
        " logits_processors lmx_reproducible"
    )
    await api.chat()
    assert (await api.chat(**dict.fromkeys(names.split()))).status_code == 200
    assert api.kernel.answers[0].request == api.kernel.answers[1].request
    assert api.kernel.request.sampling == SamplingRequest()
    assert api.kernel.request.max_tokens is None


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"max_tokens": -1}, {"max_tokens": None}),
        ({"max_completion_tokens": 5, "max_tokens": 9}, {"max_tokens": 5}),
        ({"max_completion_tokens": -1, "max_tokens": 9}, {"max_tokens": None}),
        ({"stop": "x"}, {"stop": ("x",)}),
        ({"stop": ["", "x"]}, {"stop": ("x",)}),
        ({"stop": []}, {"stop": ()}),
        ({"seed": -1}, {"sampling": SamplingRequest(seed=None)}),
        ({"seed": 0}, {"sampling": SamplingRequest(seed=0)}),
        ({"temperature": 0}, {"sampling": SamplingRequest(temperature=0)}),
        ({"top_k": -1}, {"sampling": SamplingRequest(top_k=0)}),
        ({"top_k": 0}, {"sampling": SamplingRequest(top_k=0)}),
        ({"repeat_penalty": 1.2}, {"sampling": SamplingRequest(repetition_penalty=1.2)}),
        ({"top_logprobs": 0}, {"logprobs": None}),
        ({"logits_processors": {"a": {"x": [1]}}}, {"logits_processors": {"a": {"x": [1]}}}),
        ({"lmx_reproducible": True}, {"reproducible": True}),
    ],
)
async def test_forms_of_parameters(api, fields, expected):
    assert (await api.chat(**fields)).status_code == 200
    request = api.kernel.request
    assert {name: getattr(request, name) for name in expected} == expected


async def test_content_of_every_role_may_be_text_null_or_parts(api):
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b", "cache_control": {}}]
    messages = [
        {"role": "developer", "content": parts},
        {"role": "system", "content": "s"},
        {"role": "user", "content": parts, "name": "me"},
        {"role": "assistant", "content": None, "tool_calls": [], "reasoning_content": "hm"},
        {"role": "assistant"},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]},
        {"role": "tool", "content": parts, "tool_call_id": "c"},
    ]
    assert (await api.chat(messages=messages)).status_code == 200
    two = (TextPart("a"), TextPart("b"))
    assert api.kernel.request.prompt == ChatPrompt(
        (
            Message("developer", two),
            Message("system", (TextPart("s"),)),
            Message("user", two, name="me"),
            Message("assistant", (), reasoning="hm"),
            Message("assistant", ()),
            Message("assistant", (TextPart("No."),)),
            Message("tool", two, tool_call_id="c"),
        )
    )


@pytest.mark.parametrize(("sent", "got"), [("small", "small"), ("", ""), (None, "")])
async def test_a_draft_model_is_passed_on(api, sent, got):
    assert (await api.chat(draft_model=sent)).status_code == 200
    assert api.kernel.request.draft_model == got


async def test_noise_is_ignored(api):
    answer = await api.chat(
        user="me",
        metadata={"a": "b"},
        store=True,
        service_tier="auto",
        safety_identifier="x",
        prompt_cache_key="x",
        verbosity="low",
        never_heard_of={"deep": [{}]},
    )
    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("asked", "key", "got"),
    [
        ("flex", "high", "flex"),
        ("auto", "high", "default"),
        ("default", "low", "flex"),
        ("priority", "high", "priority"),
        ("priority", "normal", "default"),
        ("never heard of it", "high", "default"),
    ],
)
async def test_a_service_tier_is_answered_with_what_it_got(api, asked, key, got):
    api.kernel.terms = terms = Terms(priority=Priority(key))
    answer = await api.chat(service_tier=asked)
    assert answer.json()["service_tier"] == got
    tiers = {"flex": "low", "default": "normal", "priority": "high"}
    assert terms.grant(api.kernel.request.priority) == tiers[got]


async def test_without_a_service_tier_a_request_gets_what_its_key_may_have(api):
    answer = await api.chat()
    assert "service_tier" not in answer.json()
    assert api.kernel.request.priority is Priority.HIGH, "the kernel lowers it"


async def test_values_that_ask_for_nothing_pass(api):
    answer = await api.chat(
        tools=[],
        tool_choice="none",
        functions=[],
        function_call="auto",
        modalities=["text"],
        response_format={"type": "text"},
    )
    assert answer.status_code == 200


@pytest.mark.parametrize("content_type", ["application/x-www-form-urlencoded", "text/plain", "x"])
async def test_the_content_type_does_not_matter(api, content_type):
    body = json.dumps({"model": MODEL, "messages": HI})
    answer = await api.post(
        "chat/completions", body.encode(), headers={"content-type": content_type}
    )
    assert answer.status_code == 200


async def test_a_byte_order_mark_is_harmless(api):
    body = json.dumps({"model": MODEL, "messages": HI})
    answer = await api.post("chat/completions", b"\xef\xbb\xbf" + body.encode())
    assert answer.status_code == 200


# --- errors ---


@pytest.mark.parametrize("stream", [False, True])
async def test_a_refusal_of_the_kernel_keeps_its_status(api, stream):
    api.kernel.refusal = QueueFullError("full", retry_after_s=3)
    with pytest.raises(openai.RateLimitError) as caught:
        await api.sdk.chat.completions.create(model=MODEL, messages=HI, stream=stream)
    assert caught.value.code == "queue_full"
    assert caught.value.type == "rate_limit_error"
    assert caught.value.response.headers["retry-after"] == "3"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_check_that_fails_late_keeps_its_status(api, stream):
    error = ContextOverflowError("9 tokens, 8 fit", param="messages")
    api.kernel.play = lambda answer: answer.end("context_length_exceeded", error)
    with pytest.raises(openai.BadRequestError, match="9 tokens, 8 fit") as caught:
        await api.sdk.chat.completions.create(model=MODEL, messages=HI, stream=stream)
    assert caught.value.code == "context_length_exceeded"
    assert caught.value.param == "messages"


async def test_an_unknown_model_is_told_as_lm_studio_does(api):
    with pytest.raises(openai.NotFoundError, match=MODEL) as caught:
        await api.sdk.chat.completions.create(model="nope", messages=HI)
    error = caught.value
    assert (error.code, error.param) == ("model_not_found", "model")
    assert error.type == "invalid_request_error"


@pytest.mark.parametrize(("method", "path"), [("GET", "/v1/nope"), ("PUT", "/v1/models")])
async def test_errors_of_the_http_layer_have_the_same_shape(api, method, path):
    answer = await api.http.request(method, path)
    assert answer.status_code in {404, 405}
    assert answer.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (403, "permission_error"),
        (404, "invalid_request_error"),
        (413, "invalid_request_error"),
        (422, "invalid_request_error"),
        (429, "rate_limit_error"),
        (500, "server_error"),
        (503, "server_error"),
    ],
)
def test_the_type_of_an_error_follows_its_status(surface, status, expected):
    error = LmxError("boom", param="x")
    error.status = status
    assert surface.render_error(error) == {
        "error": {"message": "boom", "type": expected, "param": "x", "code": "internal_error"}
    }


async def test_a_client_that_leaves_a_whole_answer_ends_it(api):
    api.kernel.play = lambda answer: answer.admit(1)
    async with api.leaving("chat/completions", {"model": MODEL, "messages": HI}):
        await api.kernel.asked.wait()
    await api.kernel.closed.wait()
