"""Tools: how the model gets them, and how its calls come back."""

from __future__ import annotations

import json

import pytest
from lmx_responses_api.string_field import StringField
from structlog.testing import capture_logs

from lmx_kernel.testing.stub_kernel import MODEL
from lmx_kernel.types import ToolChoice

LS = {"type": "function", "name": "ls", "parameters": {"type": "object"}, "strict": False}
SPACE = {
    "type": "namespace",
    "name": "agents",
    "description": "Other agents",
    "tools": [
        {"type": "function", "name": "spawn", "description": "Start one"},
        {"type": "function", "name": "ls"},
    ],
}
WEB = {"type": "web_search", "external_web_access": False}
LARK = {"type": "grammar", "syntax": "lark", "definition": 'start: "a"+'}
PATCH = {"type": "custom", "name": "patch", "description": "Patch a file", "format": LARK}
NOTE = {"type": "custom", "name": "note"}


def turn(*more, **fields):
    """Return what an agent sends: its whole history, and fields that it always has."""
    developer = {"type": "message", "role": "developer"}
    user = {"type": "message", "role": "user"}
    return {
        "input": [
            {**developer, "id": "msg_1", "content": [{"type": "input_text", "text": "Base."}]},
            {**developer, "id": "msg_2", "content": [{"type": "input_text", "text": "Skills."}]},
            {**user, "id": "msg_3", "content": [{"type": "input_text", "text": "Linux."}]},
            {**user, "id": "msg_4", "content": [{"type": "input_text", "text": "List it."}]},
            *more,
        ],
        "tools": [LS, SPACE, WEB, {"type": "tool_of_next_year", "name": {}}],
        "tool_choice": "auto",
        "parallel_tool_calls": True,
        "reasoning": {"summary": "auto"},
        "store": False,
        "include": ["reasoning.encrypted_content"],
        "prompt_cache_key": "0-1-2",
        "client_metadata": {"x": "{}"},
        **fields,
    }


async def test_an_agents_turn_and_its_next(api):
    api.kernel.play = api.play(
        *api.thoughts("Hm"),
        *api.call("agents__ls", '{"id": 1}'),
        *api.call("spawn", "{}", index=1),
        reason="tool_calls",
    )
    events = await api.streamed(**turn())
    first = api.prompt
    assert [tool.name for tool in first.tools] == ["ls", "spawn", "agents__ls"]
    items = [event["item"] for event in events if event["type"] == "response.output_item.done"]
    assert [(item.get("name"), item.get("namespace")) for item in items[1:]] == [
        ("ls", "agents"),
        ("spawn", "agents"),
    ]
    outputs = [
        {"type": "function_call_output", "id": "fco_1", "call_id": "call_0", "output": "a"},
        {
            "type": "function_call_output",
            "call_id": "call_1",
            "output": [{"type": "input_image", "image_url": "data:,", "detail": "high"}],
        },
    ]
    api.kernel.play = api.play(*api.texts("Done."))
    events = await api.streamed(**turn(*items, *outputs))
    assert events[-1]["response"]["status"] == "completed"
    second = api.prompt
    assert second.tools == first.tools
    assert second.messages[: len(first.messages)] == first.messages
    said, *results = second.messages[len(first.messages) :]
    assert said.reasoning == "Hm"
    assert [call.name for call in said.tool_calls] == ["agents__ls", "spawn"]
    assert [(message.role, message.tool_call_id) for message in results] == [
        ("tool", "call_0"),
        ("tool", "call_1"),
    ]
    assert not api.kernel.stored_answers.entries


async def test_the_log_tells_once_which_tools_are_left_out(api):
    with capture_logs() as logs:
        response = await api.made(tools=[LS, WEB, WEB], tool_choice="auto")
        await api.get(response["id"])
    left_out = [entry for entry in logs if entry["event"] == "tools_left_out"]
    assert [entry["types"] for entry in left_out] == [["web_search"]]


async def test_the_response_repeats_the_tools(api):
    response = await api.made(tools=[LS, SPACE, WEB], tool_choice="auto")
    assert [tool["type"] for tool in response["tools"]] == ["function", "namespace", "web_search"]


async def test_the_sdk_gets_calls(api):
    api.kernel.play = api.play(
        *api.call("ls", '{"a": 1}'), *api.call("note", '{"input": "x"}', index=1)
    )
    response = await api.sdk.responses.create(model=MODEL, input="Hi", tools=[LS, NOTE])
    ls, note = response.output
    assert (ls.type, ls.name, ls.arguments) == ("function_call", "ls", '{"a": 1}')
    assert (note.type, note.name, note.input) == ("custom_tool_call", "note", "x")


@pytest.mark.parametrize(
    ("choice", "wanted"),
    [
        ("none", ToolChoice(mode="none")),
        ("auto", ToolChoice()),
        ("required", ToolChoice(mode="required")),
        ({"type": "function", "name": "ls"}, ToolChoice(mode="required", names=("ls",))),
        ({"type": "custom", "name": "note"}, ToolChoice(mode="required", names=("note",))),
        (
            {"type": "function", "name": "ls", "namespace": "agents"},
            ToolChoice(mode="required", names=("agents__ls",)),
        ),
        ({"type": "function", "name": "spawn"}, ToolChoice(mode="required", names=("spawn",))),
        (
            {
                "type": "allowed_tools",
                "mode": "auto",
                "tools": [{"type": "custom", "name": "note"}, {"type": "web_search"}],
            },
            ToolChoice(names=("note",)),
        ),
        (
            {
                "type": "allowed_tools",
                "mode": "required",
                "tools": [{"type": "function", "name": "ls"}],
            },
            ToolChoice(mode="required", names=("ls",)),
        ),
        ({"type": "allowed_tools", "mode": "auto", "tools": []}, ToolChoice(mode="none")),
    ],
)
async def test_choices(api, choice, wanted):
    response = await api.made(tools=[LS, SPACE, NOTE, WEB], tool_choice=choice)
    assert api.request.tool_choice == wanted
    assert api.request.parallel_tool_calls == (not isinstance(choice, dict) or "mode" in choice)
    assert response["tool_choice"] == choice


async def test_one_call_at_a_time(api):
    await api.made(tools=[LS], parallel_tool_calls=False)
    assert not api.request.parallel_tool_calls


async def test_a_custom_tool_is_a_function_of_a_text(api):
    regex = {"type": "grammar", "syntax": "regex", "definition": "a|b"}
    await api.made(tools=[NOTE, {**PATCH, "name": "p"}, {**NOTE, "name": "r", "format": regex}])
    note, patch, pattern = api.prompt.tools
    assert note.parameters["properties"] == {"input": {"type": "string"}}
    assert note.parameters["required"] == ["input"]
    assert LARK["definition"] in patch.description
    assert patch.description.startswith("Patch a file")
    assert pattern.parameters["properties"]["input"]["pattern"] == "^(?:a|b)$"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_grammar_that_is_asked_for_holds_the_whole_answer(api, stream):
    api.kernel.play = api.play(*api.thoughts("Hm"), *api.texts("a", 'a"'))
    fields = {"tools": [LS, PATCH], "tool_choice": {"type": "custom", "name": "patch"}}
    if stream:
        events = await api.streamed(**fields)
        deltas = [e["delta"] for e in events if e["type"].endswith("tool_call_input.delta")]
        assert deltas == ["a", 'a"']
        output = events[-1]["response"]["output"]
    else:
        output = (await api.made(**fields))["output"]
    constraint = api.request.constraint
    assert (constraint.kind, constraint.source) == ("lark", LARK["definition"])
    assert constraint.param == "tools[1].format.definition"
    assert api.request.tool_choice.mode == "none"
    assert [item["type"] for item in output] == ["reasoning", "custom_tool_call"]
    assert (output[1]["name"], output[1]["input"]) == ("patch", 'aa"')
    assert output[1]["call_id"].startswith("call_")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [{"type": "file_search", "vector_store_ids": []}]}, "tools[0].type"),
        ({"tools": [LS, {"type": "mcp", "server_label": "x"}]}, "tools[1].type"),
        ({"tools": [{"name": "x"}]}, "tools[0].type"),
        ({"tools": [{"type": "function"}]}, "tools[0].name"),
        ({"tools": [LS, LS]}, "tools[1].name"),
        ({"tools": [{**SPACE, "tools": [{"type": "function"}]}]}, "tools[0].tools[0].name"),
        ({"tools": [{**NOTE, "format": {"type": "grammar"}}]}, "tools[0].format.syntax"),
        ({"tools": [WEB], "tool_choice": {"type": "web_search"}}, "tool_choice.type"),
        ({"tools": [WEB], "tool_choice": "required"}, "tool_choice"),
        ({"tools": [LS], "tool_choice": {"type": "function", "name": "cd"}}, "tool_choice.name"),
        ({"tools": [LS], "tool_choice": {"type": "function"}}, "tool_choice.name"),
        (
            {
                "tools": [LS],
                "tool_choice": {"type": "allowed_tools", "mode": "required", "tools": []},
            },
            "tool_choice.tools",
        ),
        (
            {
                "tools": [PATCH],
                "tool_choice": {"type": "custom", "name": "patch"},
                "text": {"format": {"type": "json_object"}},
            },
            "text.format",
        ),
    ],
)
async def test_refused_by_name(api, fields, param):
    assert (await api.refused(**fields))["param"] == param


TEXTS = ["", "plain", 'quo"te\\ \n\t/', "ü€😀", "*** Begin Patch\n+x = '\\n'\n"]
LONE = "\ud83d"  # half a surrogate pair, which only an escape can write


@pytest.mark.parametrize("size", [1, 2, 3, 100])
@pytest.mark.parametrize(
    ("text", "is_ascii"),
    [*((text, False) for text in TEXTS), *((text, True) for text in [*TEXTS, LONE])],
)
def test_the_text_of_a_call_is_read_piece_by_piece(text, size, is_ascii):
    written = json.dumps({"input": text}, ensure_ascii=is_ascii)
    found = StringField()
    for start in range(0, len(written), size):
        before = found.text
        more = found.add(written[start : start + size])
        assert found.text == before + more
    found.finish()
    assert found.text == text.replace(LONE, "\ufffd")


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ("*** Begin Patch", "*** Begin Patch"),
        ('{"other": 1}', '{"other": 1}'),
        ('{"other": 1, "input": "x"}', "x"),
        ('{"input": "cut of', "cut of"),
        ('{"input": "cut \\', "cut "),
        ("", ""),
    ],
)
def test_calls_that_are_written_badly(written, text):
    found = StringField()
    for character in written:
        found.add(character)
    found.finish()
    assert found.text == text
