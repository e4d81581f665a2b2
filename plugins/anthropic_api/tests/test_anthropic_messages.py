"""Bodies of ``/v1/messages``: what the kernel is asked, and what is refused."""

from __future__ import annotations

import json

import pytest
from structlog.testing import capture_logs

from lmx_kernel.types import Message, Priority, Terms, TextPart, Tool, ToolCall, ToolChoice

MODEL = "acme/Tiny-1B"
HI = Message("user", (TextPart("Hi"),))
MARK = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}
SCHEMA = {"type": "object", "properties": {"path": {"type": "string"}}}
READ = {"name": "Read", "description": "Reads.", "input_schema": SCHEMA}
USED = {"type": "tool_use", "id": "t1", "name": "Read", "input": {"path": "a b"}}


def text(words, **more):
    return {"type": "text", "text": words, **more}


BILLING = text("x-anthropic-billing-header: cc_version=2.1.332.0af; cc_entrypoint=cli;")


def result(content, **more):
    return {"type": "tool_result", "tool_use_id": "t1", "content": content, **more}


def turns(*contents, roles="uaua"):
    names = {"u": "user", "a": "assistant", "s": "system"}
    return [{"role": names[r], "content": c} for r, c in zip(roles, contents, strict=False)]


async def texts(api, *contents, roles="uaua", **more):
    """Return the roles and texts of the messages that the model gets."""
    prompt = await api.prompt(messages=turns(*contents, roles=roles), **more)
    return [(message.role, message.text) for message in prompt.messages]


# --- the system prompt ---


@pytest.mark.parametrize(
    ("system", "expected"),
    [
        (None, None),
        ("", None),
        ([], None),
        ("Be kind.", "Be kind."),
        ([text("Be kind.", **MARK)], "Be kind."),
        ([text("Be kind."), text("Be brief.", **MARK)], "Be kind.\n\nBe brief."),
        ([BILLING, text("Be kind.")], "Be kind."),
        ([BILLING], None),
        ([text("Be kind."), BILLING], f"Be kind.\n\n{BILLING['text']}"),
        ([text("Be kind."), text("x-anthropic-x: y")], "Be kind.\n\nx-anthropic-x: y"),
    ],
)
async def test_the_system_prompt(api, system, expected):
    messages = (await api.prompt(system=system)).messages
    assert messages[-1] == HI
    assert [message.text for message in messages[:-1]] == ([expected] if expected else [])
    assert all(message.role == "system" for message in messages[:-1])


async def test_system_turns_and_equal_roles_stay_where_they_are(api):
    found = await texts(api, "a", "b", "c", [text("d")], "e", roles="usuus")
    assert found == [("user", "a"), ("system", "b"), ("user", "c"), ("user", "d"), ("system", "e")]


# --- turns ---


async def test_a_text_and_a_block_are_the_same(api):
    one = await api.prompt(messages=turns("a", "b", "c"))
    other = await api.prompt(messages=turns([text("a", **MARK)], [text("b")], [text("c", **MARK)]))
    assert one == other


async def test_results_come_before_what_the_user_says(api):
    answer = [text("Look:"), result("found"), text("And now?"), text("Well?")]
    prompt = await api.prompt(messages=turns("a", [text("I "), text("read."), USED], answer))
    _, said, found, asked = prompt.messages
    assert said == Message(
        "assistant",
        (TextPart("I "), TextPart("read.")),
        tool_calls=(ToolCall("t1", "Read", '{"path": "a b"}'),),
    )
    assert (found.role, found.tool_call_id, found.text) == ("tool", "t1", "found")
    assert (asked.role, asked.text) == ("user", "Look:\n\nAnd now?\n\nWell?")


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        (result("found"), "found"),
        (result([text("found")]), "found"),
        (result([text("a"), text("b", **MARK)]), "a\n\nb"),
        (result("no such file", is_error=True), "Error: no such file"),
        (result("found", is_error=False), "found"),
        (result(None), ""),
        ({"type": "tool_result", "tool_use_id": "t1"}, ""),
        (result([{"type": "image", "source": {"type": "base64", "data": "x"}}]), "[image omitted"),
        (
            result([{"type": "document", "source": {"type": "base64"}}, text("p. 1")]),
            "[document omitted: this model reads text only]\n\np. 1",
        ),
        (
            result([{"type": "document", "title": "T", "source": {"type": "text", "data": "d"}}]),
            "T\nd",
        ),
        (
            result(
                [{"type": "search_result", "title": "T", "source": "here", "content": [text("d")]}]
            ),
            "T\nhere\nd",
        ),
        (result([{"type": "tool_reference", "tool_name": "Nope"}]), "[The tool Nope is not avail"),
    ],
)
async def test_results_of_tools(api, block, expected):
    *_, (role, found) = await texts(api, "a", [USED], [block])
    assert role == "tool"
    assert found.startswith(expected) if expected else found == ""


async def test_a_picture_does_not_end_the_session(api):
    picture = {"type": "image", "source": {"type": "url", "url": "x"}}
    document = {
        "type": "document",
        "source": {"type": "content", "content": [text("one"), picture]},
    }
    ((_, found),) = await texts(api, [picture, text("What is it?"), document])
    note = "[image omitted: this model reads text only]"
    assert found == f"{note}\n\nWhat is it?\n\none\n{note}"


async def test_what_an_assistant_thought(api):
    thought = {"type": "thinking", "thinking": "Hm.", "signature": ""}
    opaque = {"type": "redacted_thinking", "data": "abc"}
    searched = {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}
    found = {"type": "web_search_tool_result", "tool_use_id": "s", "content": {"type": "error"}}
    said = [thought, opaque, searched, found, text("Yes."), USED]
    prompt = await api.prompt(messages=turns("a", said, [result("b")]))
    message = prompt.messages[1]
    assert (message.reasoning, message.text, len(message.tool_calls)) == ("Hm.", "Yes.", 1)


async def test_an_input_that_was_no_json_is_shown_as_it_was(api):
    broken = {**USED, "input": {"__unparsedToolInput": {"raw": '{"comm', "len": 6}}}
    prompt = await api.prompt(messages=turns("a", [broken], [result("bad", is_error=True)]))
    assert prompt.messages[1].tool_calls[0].arguments == '{"comm'


# --- tools ---


async def test_tools(api, kernel):
    tools = [
        {**READ, **MARK, "type": "custom"},
        {"name": "Now", "input_schema": {"type": "object"}},
    ]
    prompt = await api.prompt(tools=tools)
    assert prompt.tools == (
        Tool(name="Read", description="Reads.", parameters=SCHEMA),
        Tool(name="Now", parameters={"type": "object"}),
    )


@pytest.mark.parametrize(
    ("given", "choice", "parallel"),
    [
        (None, ToolChoice(), True),
        ({"type": "auto"}, ToolChoice(), True),
        ({"type": "auto", "disable_parallel_tool_use": True}, ToolChoice(), False),
        ({"type": "any"}, ToolChoice(mode="required"), True),
        ({"type": "any", "disable_parallel_tool_use": True}, ToolChoice(mode="required"), False),
        ({"type": "tool", "name": "Read"}, ToolChoice(mode="required", names=("Read",)), False),
        ({"type": "none"}, ToolChoice(mode="none"), True),
    ],
)
async def test_whether_tools_are_called(api, kernel, given, choice, parallel):
    await api.prompt(tools=[READ], tool_choice=given)
    assert kernel.request.tool_choice == choice
    assert kernel.request.parallel_tool_calls is parallel


async def test_a_deferred_tool_is_introduced_where_it_is_referred_to(api):
    reference = result([{"type": "tool_reference", "tool_name": "Fetch"}])
    fetch = {**READ, "name": "Fetch", "defer_loading": True}
    prompt = await api.prompt(messages=turns("a", [USED], [reference]), tools=[fetch, READ])
    assert [(tool.name, tool.hidden) for tool in prompt.tools] == [("Fetch", True), ("Read", False)]
    lead, described = prompt.messages[-1].text.split("\n")
    assert lead == "You can call this tool now:"
    assert json.loads(described) == {
        "name": "Fetch",
        "description": "Reads.",
        "parameters": SCHEMA,
    }


async def test_a_tool_of_a_server_is_left_out_if_it_came_unasked(api):
    search = {"type": "web_search_20250305", "name": "web_search", "max_uses": 8}
    with capture_logs() as logs:
        prompt = await api.prompt(tools=[search, READ], tool_choice={"type": "auto"})
    assert [tool.name for tool in prompt.tools] == ["Read"]
    (line,) = [line for line in logs if line["event"] == "server_tool_left_out"]
    assert line["name"] == "web_search"
    chosen = await api.refusal(tools=[search], tool_choice={"type": "tool", "name": "web_search"})
    assert chosen == "tool_choice.name: there is no tool 'web_search'"


# --- the rest of a body ---


async def test_every_parameter_arrives(api, kernel):
    await api.prompt(
        max_tokens=10**12,
        temperature=0.5,
        top_p=0.9,
        top_k=7,
        stop_sequences=["END", ""],
        metadata={"user_id": '{"device_id": "x"}'},
        context_management={"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        safeguards=[{"type": "dangerous_tool_use", "classifier_context": {"v": 1}}],
        mcp_servers=[],
        container=None,
    )
    request = kernel.request
    assert request.max_tokens == 2**31 - 1
    assert request.stop == ("END",)
    sampling = request.sampling
    assert (sampling.temperature, sampling.top_p, sampling.top_k) == (0.5, 0.9, 7)


@pytest.mark.parametrize(
    ("asked", "key", "priority", "got"),
    [
        (..., "high", Priority.HIGH, "priority"),
        ("auto", "high", Priority.HIGH, "priority"),
        ("auto", "normal", Priority.NORMAL, "standard"),
        (None, "low", Priority.LOW, "standard"),
        ("standard_only", "high", Priority.NORMAL, "standard"),
        ("standard_only", "low", Priority.LOW, "standard"),
    ],
)
async def test_a_service_tier_is_answered_with_what_it_got(api, kernel, asked, key, priority, got):
    kernel.terms = Terms(priority=Priority(key))
    message = (await api.ask(service_tier=asked)).json()
    assert message["usage"]["service_tier"] == got
    assert kernel.terms.grant(kernel.request.priority) is priority
    start, *_, end, _ = await api.frames(service_tier=asked)
    assert start["message"]["usage"]["service_tier"] == got
    assert "service_tier" not in end["usage"]


@pytest.mark.parametrize("tier", ["priority", "flex", "", 1])
async def test_an_unknown_service_tier_is_refused(api, tier):
    assert (await api.refusal(service_tier=tier)).startswith("service_tier: ")


@pytest.mark.parametrize(
    ("fields", "options", "tokens"),
    [
        ({}, {}, None),
        ({"thinking": {"type": "adaptive", "display": "omitted"}}, {"enable_thinking": True}, None),
        (
            {"thinking": {"type": "enabled", "budget_tokens": 31999, "display": "updates"}},
            {"enable_thinking": True},
            31999,
        ),
        ({"thinking": {"type": "disabled"}}, {"enable_thinking": False}, 0),
        ({"output_config": {"effort": "high"}}, {"reasoning_effort": "high"}, None),
        ({"output_config": {"effort": "max", "format": None}}, {"reasoning_effort": "xhigh"}, None),
    ],
)
async def test_how_much_the_model_thinks(api, kernel, fields, options, tokens):
    assert (await api.prompt(**fields)).options == options
    assert kernel.request.reasoning_tokens == tokens


@pytest.mark.parametrize(
    "fields",
    [
        {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}},
        {"output_format": {"type": "json_schema", "schema": SCHEMA}},
    ],
)
async def test_what_the_answer_must_look_like(api, kernel, fields):
    await api.prompt(**fields)
    constraint = kernel.request.constraint
    assert (constraint.kind, json.loads(constraint.source)) == ("json_schema", SCHEMA)
    (name,) = fields
    assert constraint.param.startswith(name)
    assert constraint.param.endswith("schema")


BAD = {"type": "bogus"}


@pytest.mark.parametrize(
    ("fields", "start"),
    [
        ({"max_tokens": ...}, "max_tokens: this field is required"),
        ({"max_tokens": 0}, "max_tokens: Expected"),
        ({"messages": ...}, "messages: this field is required"),
        ({"messages": []}, "messages: Expected"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role: Invalid"),
        ({"messages": turns([BAD])}, "messages[0].content[0].type: 'bogus' is not supported here"),
        ({"messages": turns("a", [BAD])}, "messages[1].content[0].type: 'bogus'"),
        ({"messages": turns([{"type": "text"}])}, "messages[0].content[0].text: this field is"),
        ({"messages": turns([USED])}, "messages[0].content[0].type: a message of the role 'user'"),
        (
            {"messages": turns("a", [result("b")])},
            "messages[1].content[0].type: a message of the role 'assistant' has no tool_result",
        ),
        ({"messages": turns("a", [{**USED, "id": None}])}, "messages[1].content[0].id: this field"),
        ({"messages": turns("a", [{**USED, "input": None}])}, "messages[1].content[0].input: this"),
        ({"messages": turns("a", [{**USED, "input": "x"}])}, "messages[1].content[0].input: "),
        ({"messages": turns([result([BAD])])}, "messages[0].content[0].content[0].type: 'bogus'"),
        ({"messages": turns([result({"a": 1})])}, "messages[0].content[0].content: text or a list"),
        ({"system": [BAD]}, "system[0].type: only text is supported"),
        ({"system": 5}, "system: Expected"),
        ({"tools": [{"name": "Read"}]}, "tools[0].input_schema: this field is required"),
        ({"tools": [{"input_schema": {}}]}, "tools[0].name: this field is required"),
        (
            {"tools": [READ, {"type": "bash_20250124", "name": "bash"}]},
            "tools[1].type: bash_20250124 is a tool of Anthropic's servers",
        ),
        ({"tool_choice": {"type": "any"}}, "tool_choice: there are no tools"),
        ({"tools": [READ], "tool_choice": {"type": "tool"}}, "tool_choice.name: this field is"),
        ({"thinking": {"type": "enabled"}}, "thinking.budget_tokens: this field is required"),
        ({"thinking": {"type": "much"}}, "thinking.type: Invalid"),
        ({"output_config": {"effort": "none at all"}}, "output_config.effort: Invalid"),
        (
            {
                "output_format": {"type": "json_schema", "schema": {}},
                "output_config": {"format": {"type": "json_schema", "schema": SCHEMA}},
            },
            "output_format: contradicts output_config.format",
        ),
        ({"mcp_servers": [{"url": "x"}]}, "mcp_servers: not supported yet"),
        ({"container": "c1"}, "container: not supported yet"),
        ({"temperature": 3}, "temperature: Expected"),
        ({"stop_sequences": "END"}, "stop_sequences: Expected"),
        ({"messages": ..., "input": "Hi"}, "input: belongs to a body of /v1/responses"),
        ({"max_completion_tokens": 5}, "max_completion_tokens: belongs to a body of /v1/chat/comp"),
    ],
)
async def test_what_is_wrong_is_named(api, fields, start):
    assert (await api.refusal(**fields)).startswith(start)


@pytest.mark.parametrize("thread", [{"type": "create"}, {"type": "continue"}, "x"])
@pytest.mark.parametrize("more", [{}, {"messages": "wrong"}, {"stream": True}])
async def test_a_thread_is_refused_as_the_sdk_expects_it(api, thread, more):
    answer = await api.ask(thread=thread, **more)
    assert answer.status_code == 400
    assert answer.json() == {
        "type": "error",
        "error": {
            "type": "invalid_request_error",
            "message": "thread is not supported",
            "details": {
                "error_code": "thread_unsupported_request",
                "unsupported": ["thread"],
            },
        },
    }


async def test_counting_takes_the_same_prompt_without_a_limit(api, kernel):
    fields = {"system": [text("Be kind.")], "tools": [READ], "thinking": {"type": "adaptive"}}
    counted = await api.sdk.messages.count_tokens(
        model=MODEL, messages=[{"role": "user", "content": "Hi"}], **fields
    )
    assert counted.input_tokens == 7
    assert kernel.counted[0].prompt == await api.prompt(**fields)
