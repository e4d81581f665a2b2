"""Tools, thoughts and shapes: what the kernel is asked, and what clients get."""

from __future__ import annotations

import json

import pytest

from lmx_kernel.types import (
    Constraint,
    Finished,
    Message,
    ReasoningDelta,
    TextDelta,
    TextPart,
    Tool,
    ToolCall,
    ToolCallDelta,
    ToolCallStarted,
    ToolChoice,
)

MODEL = "acme/Tiny-1B"
HI = [{"role": "user", "content": "Hi"}]
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}
NOW = {"type": "function", "function": {"name": "now"}}


def call_twice(answer):
    """Think, then call two tools, the first in pieces."""
    answer.admit(5)
    answer.start()
    for index in range(answer.request.candidates):
        answer.receive(TextDelta(index, "", (1,)))
        answer.receive(ReasoningDelta(index, "Let me "))
        answer.receive(TextDelta(index, "", (2,)))
        answer.receive(ReasoningDelta(index, "see."))
        answer.receive(ToolCallStarted(index, 0, f"call_{index}a", "weather"))
        answer.receive(ToolCallDelta(index, 0, '{"city":'))
        answer.receive(TextDelta(index, "", (3, 4)))
        answer.receive(ToolCallDelta(index, 0, ' "Rome"}'))
        answer.receive(ToolCallStarted(index, 1, f"call_{index}b", "now"))
        answer.receive(ToolCallDelta(index, 1, "{}"))
        answer.receive(TextDelta(index, "", (5,)))
        answer.receive(Finished(index, "tool_calls", reasoning_tokens=2))
    answer.end("ok")


def talk_and_call(answer):
    """Say a word, then call."""
    answer.admit(5)
    answer.receive(TextDelta(0, "Wait.", (1,)))
    answer.receive(ToolCallStarted(0, 0, "call_a", "now"))
    answer.receive(ToolCallDelta(0, 0, "{}"))
    answer.receive(Finished(0, "tool_calls"))
    answer.end("ok")


# --- answers ---


async def test_calls_and_thoughts_of_a_whole_answer(api):
    api.kernel.play = call_twice
    answer = (await api.chat(tools=[WEATHER, NOW])).json()
    (choice,) = answer["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"] == {
        "role": "assistant",
        "content": None,
        "refusal": None,
        "reasoning_content": "Let me see.",
        "tool_calls": [
            {
                "id": "call_0a",
                "type": "function",
                "function": {"name": "weather", "arguments": '{"city": "Rome"}'},
            },
            {"id": "call_0b", "type": "function", "function": {"name": "now", "arguments": "{}"}},
        ],
    }
    assert answer["usage"]["completion_tokens_details"]["reasoning_tokens"] == 2


async def test_an_answer_without_calls_or_thoughts_has_no_keys_for_them(api):
    message = (await api.chat(tools=[NOW])).json()["choices"][0]["message"]
    assert message == {"role": "assistant", "content": "Hello", "refusal": None}


async def test_text_beside_a_call_is_kept(api):
    api.kernel.play = talk_and_call
    message = (await api.chat(tools=[NOW])).json()["choices"][0]["message"]
    assert message["content"] == "Wait."
    assert len(message["tool_calls"]) == 1


async def test_the_deltas_of_a_stream(api, chunks):
    """Clients add deltas up: what is said twice becomes wrong, and an empty list ends some."""
    api.kernel.play = call_twice
    found = chunks((await api.chat(stream=True, tools=[WEATHER, NOW])).text)
    assert [chunk["choices"][0]["delta"] for chunk in found] == [
        {"role": "assistant", "content": ""},
        {"reasoning_content": "Let me "},
        {"reasoning_content": "see."},
        {
            "tool_calls": [
                {
                    "index": 0,
                    "id": "call_0a",
                    "type": "function",
                    "function": {"name": "weather", "arguments": ""},
                }
            ]
        },
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"city":'}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": ' "Rome"}'}}]},
        {
            "tool_calls": [
                {
                    "index": 1,
                    "id": "call_0b",
                    "type": "function",
                    "function": {"name": "now", "arguments": ""},
                }
            ]
        },
        {"tool_calls": [{"index": 1, "function": {"arguments": "{}"}}]},
        {},
    ]
    reasons = [chunk["choices"][0]["finish_reason"] for chunk in found]
    assert reasons == [None] * 8 + ["tool_calls"]


async def test_the_sdk_adds_up_the_calls_of_every_choice(api):
    api.kernel.play = call_twice
    async with api.sdk.chat.completions.stream(
        model=MODEL,
        messages=HI,
        n=2,
        tools=[WEATHER, NOW],
        stream_options={"include_usage": True},
    ) as stream:
        events = [event async for event in stream]
        whole = await stream.get_final_completion()
    for index, choice in enumerate(whole.choices):
        calls = [
            (call.id, call.function.name, call.function.arguments)
            for call in choice.message.tool_calls
        ]
        assert calls == [
            (f"call_{index}a", "weather", '{"city": "Rome"}'),
            (f"call_{index}b", "now", "{}"),
        ]
        assert choice.finish_reason == "tool_calls"
    assert whole.usage.completion_tokens_details.reasoning_tokens == 4
    assert "tool_calls.function.arguments.done" in {event.type for event in events}


# --- what is asked of the kernel: tools ---


async def test_tools_arrive(api):
    strict = {
        "type": "function",
        "function": {
            "name": "f",
            "description": "does it",
            "parameters": None,
            "strict": "true",
            "more": 1,
        },
    }
    assert (await api.chat(tools=[WEATHER, NOW, strict])).status_code == 200
    assert api.kernel.request.prompt.tools == (
        Tool(name="weather", parameters=SCHEMA),
        Tool(name="now"),
        Tool(name="f", description="does it", strict=True),
    )
    assert api.kernel.request.tool_choice == ToolChoice()
    assert api.kernel.request.parallel_tool_calls


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (None, ToolChoice()),
        ("auto", ToolChoice()),
        ("none", ToolChoice(mode="none")),
        ("required", ToolChoice(mode="required")),
        (
            {"type": "function", "function": {"name": "now"}},
            ToolChoice(mode="required", names=("now",)),
        ),
    ],
)
async def test_every_form_of_tool_choice(api, choice, expected):
    await api.chat(tools=[WEATHER, NOW], tool_choice=choice, parallel_tool_calls=False)
    assert api.kernel.request.tool_choice == expected
    assert not api.kernel.request.parallel_tool_calls


async def test_an_earlier_call_and_its_result_arrive(api):
    called = {"id": "c", "type": "function", "function": {"name": "now", "arguments": '{"a":1}'}}
    messages = [
        *HI,
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [called, {"id": "d", "function": {"name": "now"}}],
            "reasoning_content": "hm",
            "function_call": None,
            "audio": None,
            "refusal": None,
        },
        {"role": "tool", "tool_call_id": "c", "name": "now", "content": "noon"},
    ]
    assert (await api.chat(messages=messages)).status_code == 200
    _, assistant, tool = api.kernel.request.prompt.messages
    calls = (ToolCall("c", "now", '{"a":1}'), ToolCall("d", "now", ""))
    assert assistant == Message("assistant", (), tool_calls=calls, reasoning="hm")
    assert tool == Message("tool", (TextPart("noon"),), tool_call_id="c", name="now")


async def test_tools_are_counted(api):
    await api.post(
        "chat/completions/count_tokens", {"model": MODEL, "messages": HI, "tools": [NOW]}
    )
    assert api.kernel.counted[0].prompt.tools == (Tool(name="now"),)


# --- shapes ---

JSON_SCHEMA = {"name": "x", "strict": "true", "schema": SCHEMA}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, None),
        ({"response_format": {"type": "text"}}, None),
        ({"response_format": {"type": "json_object"}}, Constraint("json_object")),
        ({"guided_regex": "[ab]+"}, Constraint("regex", "[ab]+")),
        ({"guided_regex": ""}, None),
        ({"guided_grammar": 'start: "a"'}, Constraint("lark", 'start: "a"')),
        ({"guided_regex": "a", "response_format": {"type": "text"}}, Constraint("regex", "a")),
    ],
)
async def test_shapes(api, fields, expected):
    assert (await api.chat(**fields)).status_code == 200
    assert (await api.complete(**fields)).status_code == 200
    assert [answer.request.constraint for answer in api.kernel.answers] == [expected] * 2


@pytest.mark.parametrize(
    "form",
    [
        {"type": "json_schema", "json_schema": JSON_SCHEMA},
        {"type": "json_schema", "json_schema": {"schema": SCHEMA}},
        {"type": "json_object", "schema": SCHEMA},
    ],
)
async def test_a_schema_arrives_with_its_keys_in_order(api, form):
    assert (await api.chat(response_format=form)).status_code == 200
    constraint = api.kernel.request.constraint
    assert constraint.kind == "json_schema"
    assert list(json.loads(constraint.source).items()) == list(SCHEMA.items())


# --- reasoning ---


@pytest.mark.parametrize(
    ("fields", "options", "tokens"),
    [
        ({}, {}, None),
        ({"reasoning_effort": "low"}, {"enable_thinking": True, "reasoning_effort": "low"}, None),
        ({"reasoning_effort": "none"}, {"enable_thinking": False}, 0),
        ({"reasoning_effort": "none", "reasoning_budget": 9}, {"enable_thinking": False}, 9),
        ({"reasoning_budget": 0}, {}, 0),
        ({"thinking_budget": 7}, {}, 7),
        ({"thinking_budget": -1}, {}, None),
        (
            {"chat_template_kwargs": {"enable_thinking": False}, "reasoning_effort": "low"},
            {"enable_thinking": False, "reasoning_effort": "low"},
            None,
        ),
    ],
)
async def test_how_much_a_model_may_think(api, fields, options, tokens):
    assert (await api.chat(**fields)).status_code == 200
    assert api.kernel.request.prompt.options == options
    assert api.kernel.request.reasoning_tokens == tokens
