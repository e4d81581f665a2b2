"""Bodies that are wrong: always a 400 that says where, never a crash."""

import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lmx_openai_api.requests import chat_request, completion_requests
from lmx_openai_api.schema import ChatBody, CompletionBody

from lmx_kernel.errors import InvalidRequestError, UnsupportedFieldError
from lmx_kernel.http.json_body import MAX_COMMAS, MAX_OPENERS, parse

MODEL = "acme/Tiny-1B"
CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}]}
COMPLETION = {"model": MODEL, "prompt": "Say"}
IMAGE = {"type": "image_url", "image_url": {"url": "data:"}}
TEXT = {"type": "text", "text": "x"}


def text_part(text):
    return {"type": "text", "text": text}


def message(**fields):
    return {"messages": [{"role": "user", "content": "x", **fields}]}


def function(**fields):
    return {"tools": [{"type": "function", "function": {"name": "f", **fields}}]}


def call(**fields):
    return {"id": "c", "function": {"name": "f", "arguments": "{}"}, **fields}


def deep(levels):
    return {"type": "object", "x": json.loads("[" * levels + "]" * levels)}


def short(value):
    return repr(value)[:60]


CHAT_PROBLEMS = [
    ({"messages": []}, "messages"),
    ({"messages": None}, "messages"),
    ({"messages": "x"}, "messages"),
    ({"messages": [{"role": "user"}] * 4097}, "messages"),
    ({"messages": [{}]}, "messages[0].role"),
    ({"messages": [1]}, "messages[0]"),
    (message(role="robot"), "messages[0].role"),
    (message(role=1), "messages[0].role"),
    (message(content=1), "messages[0].content"),
    (message(content={}), "messages[0].content"),
    (message(content=["x"]), "messages[0].content[0]"),
    (message(content=[TEXT, {"type": "text"}]), "messages[0].content[1].text"),
    (message(content=[{"type": "text", "text": 4}]), "messages[0].content[0].text"),
    (message(content=[{"text": "x"}]), "messages[0].content[0].type"),
    ({"model": 7}, "model"),
    ({"model": ""}, "model"),
    ({"model": None}, "model"),
    ({"n": 0}, "n"),
    ({"n": 17}, "n"),
    ({"n": "2"}, "n"),
    ({"n": True}, "n"),
    ({"n": 1.5}, "n"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"max_tokens": -2}, "max_tokens"),
    ({"max_tokens": 10**30}, "max_tokens"),
    ({"max_completion_tokens": 0}, "max_completion_tokens"),
    ({"stop": 1}, "stop"),
    ({"stop": ["a", 1]}, "stop[1]"),
    ({"stop": ["a"] * 17}, "stop"),
    ({"stop": "a" * 257}, "stop"),
    ({"seed": 2**63}, "seed"),
    ({"seed": "x"}, "seed"),
    ({"temperature": -0.1}, "temperature"),
    ({"temperature": 2.1}, "temperature"),
    ({"temperature": "1"}, "temperature"),
    ({"top_p": -0.1}, "top_p"),
    ({"top_p": 1.1}, "top_p"),
    ({"top_k": -2}, "top_k"),
    ({"min_p": 1.1}, "min_p"),
    ({"repeat_penalty": 0}, "repeat_penalty"),
    ({"repetition_penalty": -1}, "repetition_penalty"),
    ({"presence_penalty": 2.1}, "presence_penalty"),
    ({"frequency_penalty": -2.1}, "frequency_penalty"),
    ({"logit_bias": {"x": 1}}, "logit_bias"),
    ({"logit_bias": {"-1": 1}}, "logit_bias"),
    ({"logit_bias": {"9" * 30: 1}}, "logit_bias"),
    ({"logit_bias": {"1": 101}}, "logit_bias"),
    ({"logit_bias": []}, "logit_bias"),
    ({"logit_bias": {str(i): 1 for i in range(1025)}}, "logit_bias"),
    ({"logprobs": 1}, "logprobs"),
    ({"top_logprobs": 2}, "top_logprobs"),
    ({"top_logprobs": 21, "logprobs": True}, "top_logprobs"),
    ({"stream": "yes"}, "stream"),
    ({"stream_options": []}, "stream_options"),
    ({"stream_options": {"include_usage": 1}}, "stream_options.include_usage"),
    ({"tools": "x"}, "tools"),
    ({"tools": [{"type": "function"}]}, "tools[0].function"),
    ({"tools": [{"type": "function", "function": {}}]}, "tools[0].function.name"),
    ({"tools": [{"function": {"name": "f"}}]}, "tools[0].type"),
    (function(name=""), "tools[0].function.name"),
    (function(name="f" * 129), "tools[0].function.name"),
    (function(name="a b"), "tools[0].function.name"),
    (function(name="<|end|>"), "tools[0].function.name"),
    (function(parameters={"maximum": 2**64}), "tools[0].function.parameters"),
    (function(parameters="x"), "tools[0].function.parameters"),
    (function(parameters=deep(128)), "tools[0].function.parameters"),
    (function(strict="yes"), "tools[0].function.strict"),
    ({"tools": function()["tools"] * 1025}, "tools"),
    ({"tool_choice": "any"}, "tool_choice"),
    ({"tool_choice": "required"}, "tool_choice"),
    ({"tool_choice": "required", "tools": []}, "tool_choice"),
    ({"tool_choice": {"type": "function"}} | function(), "tool_choice.function"),
    ({"tool_choice": {"function": {"name": "g"}}} | function(), "tool_choice.function.name"),
    ({"tool_choice": {"function": {"name": "f"}}}, "tool_choice.function.name"),
    ({"parallel_tool_calls": "no"}, "parallel_tool_calls"),
    ({"response_format": 5}, "response_format"),
    ({"response_format": {"type": "xml"}}, "response_format.type"),
    ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
    (
        {"response_format": {"type": "json_schema", "json_schema": {}}},
        "response_format.json_schema.schema",
    ),
    (
        {"response_format": {"type": "json_schema", "json_schema": {"schema": deep(128)}}},
        "response_format.json_schema.schema",
    ),
    ({"response_format": {"type": "json_object"}, "guided_regex": "x"}, "guided_regex"),
    ({"guided_grammar": "start: X", "guided_regex": "x"}, "guided_grammar"),
    ({"logits_processors": {"a": 1}}, "logits_processors"),
    ({"lmx_reproducible": "yes"}, "lmx_reproducible"),
    ({"guided_regex": 1}, "guided_regex"),
    ({"reasoning_effort": "huge"}, "reasoning_effort"),
    ({"reasoning_budget": -2}, "reasoning_budget"),
    ({"thinking_budget": "x"}, "thinking_budget"),
    ({"chat_template_kwargs": {"x": [-(2**63) - 1]}}, "chat_template_kwargs"),
    ({"chat_template_kwargs": []}, "chat_template_kwargs"),
    ({"reasoning": {"effort": "huge"}}, "reasoning.effort"),
    ({"reasoning": {"effort": "low"}, "reasoning_effort": "high"}, "reasoning.effort"),
    ({"reasoning": {"max_tokens": -2}}, "reasoning.max_tokens"),
    ({"reasoning": "low"}, "reasoning"),
    ({"chat_template_kwargs": deep(128)}, "chat_template_kwargs"),
    ({"prediction": {}}, "prediction.type"),
    ({"prediction": {"type": "file", "content": "x"}}, "prediction.type"),
    ({"prediction": {"type": "content"}}, "prediction.content"),
    ({"prediction": {"type": "content", "content": 5}}, "prediction.content"),
    (
        {"prediction": {"type": "content", "content": [{"type": "text"}]}},
        "prediction.content[0].text",
    ),
    (message(tool_calls=[call()]), "messages[0].tool_calls"),
    (message(role="assistant", tool_calls=[{}]), "messages[0].tool_calls[0].id"),
    (
        message(role="assistant", tool_calls=[call(function={})]),
        "messages[0].tool_calls[0].function.name",
    ),
    (message(role="tool", tool_call_id=1), "messages[0].tool_call_id"),
    (message(name=1), "messages[0].name"),
]
CHAT_UNSUPPORTED = [
    ({"tools": [{"type": "custom", "custom": {}}]}, "tools[0].type"),
    ({"tool_choice": {"type": "allowed_tools"}} | function(), "tool_choice.type"),
    ({"functions": [{}]}, "functions"),
    ({"function_call": {"name": "f"}}, "function_call"),
    ({"guided_json": {}}, "guided_json"),
    ({"guided_choice": ["a"]}, "guided_choice"),
    ({"structured_outputs": {"regex": "x"}}, "structured_outputs"),
    ({"grammar": "root ::= x"}, "grammar"),
    ({"json_schema": {}}, "json_schema"),
    ({"modalities": ["text", "audio"]}, "modalities"),
    ({"audio": {"voice": "x"}}, "audio"),
    ({"web_search_options": {}}, "web_search_options"),
    (message(role="function"), "messages[0].role"),
    (
        message(role="assistant", tool_calls=[call(type="custom")]),
        "messages[0].tool_calls[0].type",
    ),
    (message(role="assistant", function_call={}), "messages[0].function_call"),
    (message(role="assistant", audio={}), "messages[0].audio"),
    (message(content=[TEXT, IMAGE]), "messages[0].content[1]"),
    (message(content=[{"type": "input_audio"}]), "messages[0].content[0]"),
]
FIXED = [
    ({"min_tokens": 5}, "min_tokens"),
    ({"ignore_eos": True}, "ignore_eos"),
    ({"stop_token_ids": [2]}, "stop_token_ids"),
    ({"allowed_token_ids": [2]}, "allowed_token_ids"),
    ({"bad_words": ["x"]}, "bad_words"),
    ({"use_beam_search": True}, "use_beam_search"),
    ({"prompt_logprobs": 1}, "prompt_logprobs"),
    ({"truncate_prompt_tokens": 9}, "truncate_prompt_tokens"),
    ({"include_stop_str_in_output": True}, "include_stop_str_in_output"),
]
CHAT_UNSUPPORTED += [
    *FIXED,
    ({"continue_final_message": True}, "continue_final_message"),
    ({"add_generation_prompt": False}, "add_generation_prompt"),
    (
        {"chat_template_kwargs": {"add_generation_prompt": False}},
        "chat_template_kwargs.add_generation_prompt",
    ),
    (
        {"chat_template_kwargs": {"continue_final_message": True}},
        "chat_template_kwargs.continue_final_message",
    ),
    ({"chat_template": "{{ x }}"}, "chat_template"),
    ({"documents": [{"text": "x"}]}, "documents"),
    ({"echo": True}, "echo"),
    ({"reasoning": {"exclude": True}}, "reasoning.exclude"),
    ({"reasoning": {"enabled": False}}, "reasoning.enabled"),
    ({"reasoning": {"summary": "auto"}}, "reasoning.summary"),
]
COMPLETION_PROBLEMS = [
    ({"prompt": None}, "prompt"),
    ({"prompt": {}}, "prompt"),
    ({"prompt": []}, "prompt"),
    ({"prompt": [[]]}, "prompt[0]"),
    ({"prompt": ["a", 1]}, "prompt[1]"),
    ({"prompt": [1, [2]]}, "prompt[1]"),
    ({"prompt": [1, True]}, "prompt[1]"),
    ({"prompt": [-1]}, "prompt[0]"),
    ({"prompt": [[2**31]]}, "prompt[0][0]"),
    ({"prompt": ["x"] * 33}, "prompt"),
    ({"logprobs": True}, "logprobs"),
    ({"logprobs": 21}, "logprobs"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"echo": "x"}, "echo"),
    ({"best_of": 0}, "best_of"),
]
COMPLETION_UNSUPPORTED = [
    *FIXED,
    ({"suffix": "x"}, "suffix"),
    ({"best_of": 2}, "best_of"),
    ({"echo": True, "prompt": [1]}, "echo"),
    ({"echo": True, "logprobs": 1}, "echo"),
]


@pytest.mark.parametrize(("fields", "param"), CHAT_PROBLEMS, ids=short)
def test_a_wrong_chat_field_is_named(fields, param):
    with pytest.raises(InvalidRequestError) as caught:
        chat_request(parse(json.dumps(CHAT | fields).encode(), ChatBody))
    assert type(caught.value) is InvalidRequestError
    assert caught.value.param == param
    assert param in caught.value.message


@pytest.mark.parametrize(("fields", "param"), CHAT_UNSUPPORTED, ids=short)
def test_an_unsupported_chat_field_is_named(fields, param):
    with pytest.raises(UnsupportedFieldError) as caught:
        chat_request(parse(json.dumps(CHAT | fields).encode(), ChatBody))
    assert caught.value.param == param
    assert param in caught.value.message


@pytest.mark.parametrize(("fields", "param"), COMPLETION_PROBLEMS, ids=short)
def test_a_wrong_completion_field_is_named(fields, param):
    with pytest.raises(InvalidRequestError) as caught:
        completion_requests(parse(json.dumps(COMPLETION | fields).encode(), CompletionBody))
    assert type(caught.value) is InvalidRequestError
    assert caught.value.param == param


@pytest.mark.parametrize(("fields", "param"), COMPLETION_UNSUPPORTED, ids=short)
def test_an_unsupported_completion_field_is_named(fields, param):
    with pytest.raises(UnsupportedFieldError) as caught:
        completion_requests(parse(json.dumps(COMPLETION | fields).encode(), CompletionBody))
    assert caught.value.param == param


def test_fields_that_ask_for_what_happens_anyway_are_accepted():
    fields = {"min_tokens": 0, "ignore_eos": False, "add_generation_prompt": True}
    fields |= {"continue_final_message": False, "stop_token_ids": [], "documents": None}
    fields |= {"chat_template_kwargs": {"add_generation_prompt": True, "x": 1}}
    chat_request(parse(json.dumps(CHAT | fields).encode(), ChatBody))


@pytest.mark.parametrize(
    ("reasoning", "options", "budget"),
    [
        ({"effort": "low"}, {"enable_thinking": True, "reasoning_effort": "low"}, None),
        ({"effort": "none"}, {"enable_thinking": False}, 0),
        ({"max_tokens": 7}, {}, 7),
        ({}, {}, None),
    ],
)
def test_reasoning_may_be_asked_for_in_one_object(reasoning, options, budget):
    body = parse(json.dumps(CHAT | {"reasoning": reasoning}).encode(), ChatBody)
    made = chat_request(body)
    assert (made.prompt.options, made.reasoning_tokens) == (options, budget)


@pytest.mark.parametrize("content", ["a\nb", [text_part("a\n"), text_part("b")]])
def test_an_answer_may_be_predicted(content):
    prediction = {"type": "content", "content": content}
    body = parse(json.dumps(CHAT | {"prediction": prediction}).encode(), ChatBody)
    assert chat_request(body).prediction == "a\nb"
    assert chat_request(parse(json.dumps(CHAT).encode(), ChatBody)).prediction == ""


@pytest.mark.parametrize("name", ["model", "messages"])
def test_a_missing_field_is_named(name):
    body = {key: value for key, value in CHAT.items() if key != name}
    with pytest.raises(InvalidRequestError, match=f"{name}: this field is required") as caught:
        parse(json.dumps(body).encode(), ChatBody)
    assert caught.value.param == name


def test_a_long_wrong_value_is_not_repeated_at_length():
    body = CHAT | message(role="x" * 100_000)
    with pytest.raises(InvalidRequestError) as caught:
        parse(json.dumps(body).encode(), ChatBody)
    assert len(caught.value.message) < 300


@pytest.mark.parametrize("name", ["x", "tools", "messages"])
def test_deep_nesting_is_refused(name):
    body = json.dumps(CHAT)[:-1] + f', "{name}": {"[" * 20_000}{"]" * 20_000}}}'
    with pytest.raises(InvalidRequestError):
        parse(body.encode(), ChatBody)


# --- through HTTP ---

VALID = json.dumps(CHAT).encode()


def chat_with(extra: bytes) -> bytes:
    return VALID[:-1] + b"," + extra + b"}"


BROKEN = [
    b"",
    b"{",
    b"[]",
    b'"x"',
    b"null",
    b"7",
    b"model=x&messages=y",
    VALID[:-1],
    VALID + b"x",
    VALID.decode().encode("utf-16"),
    VALID.replace(b"Hi", b"\xff"),
    VALID.replace(b"Hi", b"\\ud800"),
    VALID.replace(b"Hi", b"\\udc00xxxxxxx"),
    VALID.replace(b"Hi", b"\xed\xa0\x80"),
    chat_with(b'"temperature":NaN'),
    chat_with(b'"temperature":1e999'),
    chat_with(b'"temperature":-Infinity'),
    chat_with(b'"seed":' + b"9" * 5000),
    chat_with(b'"x":' + b"[" * 50_000 + b"]" * 50_000),
    chat_with(b'"tools":' + b"[" * 50_000 + b"]" * 50_000),
    chat_with(b'"tools":' + b'{"a":' * 50_000 + b"1" + b"}" * 50_000),
    chat_with(b'"x":[' + b"[]," * MAX_OPENERS + b"1]"),
    chat_with(b'"x":[' + b"1," * MAX_COMMAS + b"1]"),
]


@pytest.mark.parametrize("body", BROKEN, ids=range(len(BROKEN)))
async def test_a_broken_body_is_a_400_in_the_usual_shape(api, body):
    answer = await api.post("chat/completions", body)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["code"] == "invalid_request"
    assert not api.kernel.answers


def mutated(rng: random.Random, body: bytes) -> bytes:
    """Return ``body`` with a few bytes cut out, doubled or replaced."""
    data = bytearray(body)
    for _ in range(rng.randint(1, 4)):
        start = rng.randrange(len(data))
        end = min(len(data), start + rng.randint(1, 8))
        piece = rng.choice([b"", data[start:end] * 2, rng.randbytes(end - start), b"null", b"-1"])
        data[start:end] = piece
    return bytes(data)


async def test_mutated_bodies_never_crash_the_server(api):
    rng = random.Random(1)
    seeds = [
        ("chat/completions", json.dumps(CHAT | fields).encode())
        for fields, _ in CHAT_PROBLEMS + CHAT_UNSUPPORTED
    ] + [
        ("completions", json.dumps(COMPLETION | fields).encode())
        for fields, _ in COMPLETION_PROBLEMS + COMPLETION_UNSUPPORTED
    ]
    statuses = set()
    for _ in range(600):
        path, body = rng.choice(seeds)
        answer = await api.post(path, mutated(rng, body))
        statuses.add(answer.status_code)
        if answer.status_code not in {200, 404}:
            error = answer.json()["error"]
            assert error["message"]
            assert error["param"] is None or error["param"] in error["message"]
    assert statuses <= {200, 400, 404}
    assert 400 in statuses


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)
CHAT_FIELDS = [field.name for field in ChatBody.__attrs_attrs__]
COMPLETION_FIELDS = [field.name for field in CompletionBody.__attrs_attrs__]


def refusal(ask, body, cls) -> InvalidRequestError | None:
    try:
        ask(parse(json.dumps(body).encode(), cls))
    except InvalidRequestError as error:
        return error
    return None


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from(CHAT_FIELDS), JSON, min_size=1, max_size=3))
def test_any_chat_value_is_understood_or_refused_by_name(fields):
    check_named(refusal(chat_request, CHAT | fields, ChatBody), fields)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from(COMPLETION_FIELDS), JSON, min_size=1, max_size=3))
def test_any_completion_value_is_understood_or_refused_by_name(fields):
    check_named(refusal(completion_requests, COMPLETION | fields, CompletionBody), fields)


def check_named(error, fields):
    if error and error.param is None:
        assert "not valid JSON" in error.message
    elif error:
        assert error.param.partition(".")[0].partition("[")[0] in fields
