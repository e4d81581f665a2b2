"""Calls of tools under a mask."""

from __future__ import annotations

import json

import jsonschema
import pytest
from mask_driver import (
    CALL,
    END,
    POINT,
    TOKENIZER,
    Format,
    allowed,
    call_body,
    may_say,
    ramble,
    request,
    said,
    say,
    schema_of,
    tool,
)

from lmx_kernel.errors import InvalidRequestError, InvalidSchemaError
from lmx_kernel.text.formats import CallSyntax
from lmx_kernel.types import Tool, ToolChoice

CONTROLLED = Format(marks=("<call>", "</call>"))


def test_text_is_free_until_a_call_begins(engine, plain):
    calling = engine(Format())
    mask = calling.plan(request(tools=(tool(),)), "").mask()
    say(mask, 'I would {"say": anything} <tool')
    assert END in allowed(mask)
    say(mask, TOKENIZER.encode(" or not <tool_call>"))
    assert END not in allowed(mask)
    tokens = ramble(mask)
    body = said(tokens).removesuffix("</tool_call>")
    assert json.loads(body)["name"] == "move"
    jsonschema.validate(json.loads(body)["arguments"], POINT)


def test_a_call_may_be_a_control_token(engine):
    mask = engine(CONTROLLED).plan(request(tools=(tool(),)), "").mask()
    say(mask, 'I could say "<call>"')  # as text it is none
    assert END in allowed(mask)
    say(
        mask,
        [CALL, *TOKENIZER.encode('\n{"name": "move", "arguments": {"x": 1, "side": "left"}}\n')],
    )
    [closing] = allowed(mask)
    assert TOKENIZER.token_bytes[closing] == b"</call>"


@pytest.mark.parametrize("parallel", [True, False])
def test_required_calls_begin_at_once_and_are_as_many_as_asked_for(engine, parallel):
    must = ToolChoice(mode="required")
    asked = request(tools=(tool(),), tool_choice=must, parallel_tool_calls=parallel)
    mask = engine(Format()).plan(asked, "").mask()
    assert said(mask.forced()).startswith("<tool_call>")
    say(mask, '<tool_call>\n{"name": "move", "arguments": {"x": 1, "side": "left"}}\n</tool_call>')
    assert mask.is_complete is not parallel
    assert may_say(mask, "<tool_call>") or not parallel


def test_only_named_tools_may_be_called(engine):
    tools = (tool(), Tool(name="stop", parameters={"type": "object"}))
    choice = ToolChoice(mode="required", names=("stop",))
    mask = engine(Format()).plan(request(tools=tools, tool_choice=choice), "").mask()
    say(mask, '<tool_call>\n{"name": "')
    assert said(mask.forced()).startswith("stop")


def test_an_answer_is_a_call_or_fits_the_schema(engine):
    asked = request(tools=(tool(),), constraint=schema_of(POINT))
    plan = engine(Format()).plan(asked, "")
    mask = plan.mask()
    assert not may_say(mask, "h")
    say(mask, '{"x": 1')
    mask = plan.mask()
    say(mask, '<tool_call>\n{"name": "move')


@pytest.mark.parametrize("strict", [True, False])
def test_absurd_bounds_of_a_tool_are_relaxed(engine, strict):
    absurd = {
        "type": "object",
        "properties": {"s": {"type": "string", "maxLength": 2**64 - 1, "format": "zorg"}},
        "required": ["s"],
        "additionalProperties": False,
    }
    must = ToolChoice(mode="required")
    calling = engine(Format())
    asked = request(tools=(tool(absurd, strict=strict),), tool_choice=must)
    say(
        calling.plan(asked, "").mask(),
        '<tool_call>\n{"name": "move", "arguments": {"s": "anything"}}\n</tool_call>',
    )


def test_a_strict_tool_that_cannot_be_followed_is_refused(engine):
    odd = POINT | {"not": {"required": ["z"]}}
    with pytest.raises(InvalidSchemaError) as caught:
        engine(Format()).plan(request(tools=(tool(odd, strict=True),)), "")
    assert caught.value.param == "tools"


def test_a_pattern_that_cannot_be_followed_costs_only_itself(engine):
    text = {"type": "string", "pattern": "^(?!a)b"}
    odd = POINT | {"properties": POINT["properties"] | {"side": text}}
    must = ToolChoice(mode="required")
    mask = engine(Format()).plan(request(tools=(tool(odd),), tool_choice=must), "").mask()
    say(mask, '<tool_call>\n{"name": "move", "arguments": {"x": ')
    assert not may_say(mask, "n")
    say(mask, '1, "side": "any"')


class Manifold(Format):
    """Calls that begin in several ways."""

    def calls(self, tools, *, parallel):
        body = call_body(tools[0])
        return CallSyntax(
            triggers=("<call>", "CALL:"),
            grammar=f'calls: ("<call>" | "CALL:")? {body}',
            bare=(r'\{\s*"name"\s*:\s*"', '{"name": "'),
        )


@pytest.mark.parametrize(
    "start",
    [
        [CALL, *TOKENIZER.encode('{"name": "')],
        TOKENIZER.encode('I do. CALL:{"name": "'),
        TOKENIZER.encode(' {"name" :"'),
    ],
)
def test_calls_may_begin_in_several_ways(engine, start):
    mask = engine(Manifold()).plan(request(tools=(tool(),)), "").mask()
    say(mask, start)
    assert not may_say(mask, "x")
    say(mask, 'move", "arguments": {"x": 1, "side": "left"}}')
    assert mask.is_complete


def test_what_looks_like_a_call_inside_a_text_is_text(engine):
    mask = engine(Manifold()).plan(request(tools=(tool(),)), "").mask()
    say(mask, 'A person is {"name": "x')
    assert END in allowed(mask)


def test_a_tool_whose_schema_is_beyond_help_takes_any_object(engine):
    must = ToolChoice(mode="required", names=())
    tools = (tool({"$ref": "#"}), Tool(name="turn", parameters=POINT))
    mask = engine(Format()).plan(request(tools=tools, tool_choice=must), "").mask()
    say(mask, '<tool_call>\n{"name": "move", "arguments": {"free": [1]}}\n</tool_call>')
    say(mask, '<tool_call>\n{"name": "turn", "arguments": {"x": ')
    assert not may_say(mask, "n")


def test_a_mark_inside_a_schema_is_text(engine):
    odd = POINT | {"properties": {"x": {"const": "<call>"}, "side": {"const": 1}}}
    must = ToolChoice(mode="required")
    mask = engine(CONTROLLED).plan(request(tools=(tool(odd),), tool_choice=must), "").mask()
    say(
        mask, [CALL, *TOKENIZER.encode('\n{"name": "move", "arguments": {"x": "<call>", "side": 1')]
    )


def test_a_call_that_must_be_and_cannot_is_refused(plain):
    asked = request(tools=(tool(),), tool_choice=ToolChoice(mode="required"))
    with pytest.raises(InvalidRequestError, match="called"):
        plain.plan(asked, "")
    assert plain.plan(request(tools=(tool(),)), "") is None


def test_a_strict_call_that_cannot_be_masked_is_refused(plain):
    with pytest.raises(InvalidRequestError, match="strict"):
        plain.plan(request(tools=(tool(strict=True),)), "")


def test_a_header_stands_before_a_text_that_is_constrained(engine):
    headed = engine(Format(marks=("<call>", "</call>"), header="<begin>final:"))
    point = '{"x": 1, "side": "left"}'
    for tools in ((), (tool(),)):
        mask = headed.plan(request(constraint=schema_of(POINT), tools=tools), "").mask()
        assert not may_say(mask, point)
        say(mask, [TOKENIZER.token_bytes.index(b"<begin>"), *TOKENIZER.encode(f"final:{point}")])
        assert mask.is_complete
    asked = request(constraint=schema_of(POINT), tools=(tool(),))
    say(headed.plan(asked, "").mask(), [CALL, *TOKENIZER.encode('\n{"name": "move')])
