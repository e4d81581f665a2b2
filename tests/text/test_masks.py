"""Masks, by what they let a model say that says anything at all."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import sys
import time
from array import array

import jsonschema
import pytest
from attrs import evolve

from lmx_kernel.errors import InvalidRequestError, InvalidSchemaError, UnavailableError
from lmx_kernel.text.constraints.checker import DEADLINE_S, Compiler
from lmx_kernel.text.constraints.grammar import schema
from lmx_kernel.text.constraints.masks import MaskFactory, needs_mask
from lmx_kernel.text.formats import CallSyntax, PlainFormat
from lmx_kernel.types import (
    ChatPrompt,
    Constraint,
    GenerationRequest,
    Message,
    TextPart,
    Tool,
    ToolChoice,
)

WORDS = [b"</think>", b"<tool_call>", b"true", b'{"', b'": ', b'", "', b"\n\n", b"hello", b"12"]
CONTROLS = [b"<end>", b"<begin>", b"<call>", b"</call>"]
POINT = {
    "type": "object",
    "properties": {"x": {"type": "integer"}, "side": {"enum": ["left", "right"]}},
    "required": ["x", "side"],
    "additionalProperties": False,
}


class Tokenizer:
    """Bytes, a few words and a few control tokens."""

    token_bytes = (*(bytes([n]) for n in range(256)), *WORDS, *CONTROLS)
    special_ids = frozenset(range(256 + len(WORDS), 256 + len(WORDS) + len(CONTROLS)))
    end_ids = frozenset({256 + len(WORDS)})
    chat_template = ""

    def encode(self, text, *, add_special=False, parse_special=False):
        found = re.findall(b"|".join([*map(re.escape, WORDS), b"(?s:.)"]), text.encode())
        return [self.token_bytes.index(piece) for piece in found if piece in self.token_bytes]


TOKENIZER = Tokenizer()
END = min(TOKENIZER.end_ids)
CALL = TOKENIZER.token_bytes.index(b"<call>")


class Format(PlainFormat):
    """Calls and thoughts as a test wants them."""

    name = "tested"

    def __init__(self, thought=None, marks=("<tool_call>", "</tool_call>"), header=""):
        self._thought, self._marks, self._header = thought, marks, header

    def header(self, prompt):
        return self._header

    def thought(self, prompt):
        return self._thought

    def calls(self, tools, *, parallel):
        opening, closing = self._marks
        rules = [
            "calls: call+" if parallel else "calls: call",
            f'call: "{opening}" "\\n" body "\\n" "{closing}"',
            "body: " + " | ".join(map(_body, tools)),
        ]
        return CallSyntax(triggers=(opening,), grammar="\n".join(rules))


def _body(tool):
    name, schema = (
        json.dumps(f'{{"name": "{tool.name}", "arguments": '),
        json.dumps(tool.parameters),
    )
    return f'{name} %json {schema} "}}"'


def request(**fields):
    tools = fields.pop("tools", ())
    prompt = ChatPrompt((Message("user", (TextPart("hi"),)),), tools=tools)
    return GenerationRequest(model="m", prompt=prompt, **fields)


def schema_of(schema):
    return Constraint("json_schema", json.dumps(schema))


def tool(parameters=POINT, **fields):
    return Tool(name="move", parameters=parameters, **fields)


def allowed(mask):
    """Return the tokens that a mask lets pass."""
    row = array("i", bytes(4 * -(-len(TOKENIZER.token_bytes) // 32)))
    if not mask.fill(row):
        return set(range(len(TOKENIZER.token_bytes)))
    return {n for n in range(len(TOKENIZER.token_bytes)) if row[n // 32] >> n % 32 & 1}


def said(tokens):
    return b"".join(TOKENIZER.token_bytes[token] for token in tokens if token != END).decode()


def say(mask, text):
    """Say ``text``, which must be allowed, and return its tokens."""
    tokens = TOKENIZER.encode(text) if isinstance(text, str) else text
    for token in tokens:
        assert token in allowed(mask), (said([token]), said(tokens))
        mask.accept([token])
    return tokens


def may_say(mask, text):
    return TOKENIZER.encode(text)[0] in allowed(mask)


def ramble(mask, seed=0, most=2000):
    """Say anything that is allowed until nothing is; return the tokens."""
    dice = random.Random(seed)
    tokens = []
    while not mask.is_complete and len(tokens) < most:
        ends = [*TOKENIZER.encode('"}],'), END]
        choice = sorted(allowed(mask))
        near = [token for token in choice if token in ends] or choice
        token = dice.choice(near if dice.random() < 0.3 else choice)
        mask.accept([token])
        assert not mask.problem
        tokens.append(token)
        if token == END:
            break
    return tokens


@pytest.fixture(scope="module")
def factory():
    """Return the factory of a model with this format."""
    made = {}

    def make(chat_format, tokenizer=TOKENIZER):
        key = repr((type(chat_format), vars(chat_format), type(tokenizer)))
        return made.setdefault(key, MaskFactory(tokenizer, chat_format))

    yield make
    for one in made.values():
        one.close()


@pytest.fixture
def plain(factory):
    return factory(PlainFormat())


# --- constraints ---------------------------------------------------------------------------------


def test_any_text_needs_no_mask(plain):
    assert not needs_mask(request())
    assert plain.shape(request(), "") is None


@pytest.mark.parametrize("seed", range(5))
def test_a_schema_is_followed_to_its_end(plain, seed):
    shape = plain.shape(request(constraint=schema_of(POINT)), "")
    mask = shape.mask()
    tokens = ramble(mask, seed)
    assert mask.is_complete
    jsonschema.validate(json.loads(said(tokens)), POINT)


def test_a_json_object_is_an_object(plain):
    mask = plain.shape(request(constraint=Constraint("json_object")), "").mask()
    assert not may_say(mask, "[")
    assert not may_say(mask, "1")
    say(mask, '{"a": [1, {"b": null}]}')
    assert mask.is_complete


@pytest.mark.parametrize(
    ("pattern", "right", "wrong"),
    [
        (r"\d{3}-[a-z]{2}", "123-ab", "12a"),
        (r"a/b\/c", "a/b/c", "a b"),
        ('say "x"\n', 'say "x"\n', "say x"),
    ],
)
def test_a_pattern_is_matched_whole(plain, pattern, right, wrong):
    shape = plain.shape(request(constraint=Constraint("regex", pattern)), "")
    mask = shape.mask()
    say(mask, right)
    assert mask.is_complete
    mask = shape.mask()
    mask.accept(TOKENIZER.encode(wrong))
    assert not mask.is_complete or mask.problem


def test_a_grammar_of_ones_own(plain):
    source = 'start: "hi " NAME ("," NAME)*\nNAME: /[a-c]{3}/'
    mask = plain.shape(request(constraint=Constraint("lark", source)), "").mask()
    assert said(mask.forced()) == "hi "
    say(mask, "hi abc,bca")
    assert not mask.is_complete
    assert END in allowed(mask)
    mask.accept([END])
    assert mask.is_complete


def test_whitespace_has_an_end(plain):
    mask = plain.shape(request(constraint=schema_of(POINT)), "").mask()
    say(mask, "{\n" + " " * 32)
    assert not may_say(mask, " ")
    assert not may_say(mask, "\n")


def test_forced_tokens_are_those_that_would_be_drawn(plain):
    shape = plain.shape(request(constraint=schema_of(POINT)), "")
    mask, slow = shape.mask(), shape.mask()
    say(mask, '{"x": 1, "side": "l')
    say(slow, '{"x": 1, "side": "l')
    forced = mask.forced()
    assert said(forced).startswith("eft")
    assert allowed(mask) == {forced[0]}
    mask.accept(forced)
    say(slow, forced)
    assert allowed(mask) == allowed(slow)


@pytest.mark.parametrize("at", range(0, 22, 3))
def test_a_resumed_mask_stands_where_the_old_one_stood(plain, at):
    shape = plain.shape(request(constraint=schema_of(POINT)), "")
    old, new = shape.mask(), shape.mask()
    tokens = TOKENIZER.encode('{"x": 12, "side": "left"}')
    say(old, tokens[:at])
    new.accept(tokens[:at])
    assert allowed(new) == allowed(old)
    assert new.forced() == old.forced()
    assert new.is_complete == old.is_complete


def test_candidates_do_not_share_a_mask(plain):
    shape = plain.shape(request(constraint=schema_of(POINT)), "")
    one, other = shape.mask(), shape.mask()
    say(one, '{"x": 1')
    assert may_say(other, "{")
    assert not may_say(other, ",")


def test_what_leaves_the_grammar_is_a_problem_and_never_free(plain):
    mask = plain.shape(request(constraint=schema_of(POINT)), "").mask()
    mask.accept(TOKENIZER.encode("nonsense"))
    assert mask.problem
    assert not mask.is_complete
    assert mask.forced() == []


def test_a_vocabulary_without_the_bytes_is_a_problem_and_no_crash(factory):
    class Poor(Tokenizer):
        token_bytes = tuple(b"" if piece == b"}" else piece for piece in Tokenizer.token_bytes)

    mask = factory(PlainFormat(), Poor()).shape(request(constraint=Constraint("regex", "a}")), "")
    mask = mask.mask()
    mask.accept(TOKENIZER.encode("a"))
    row = array("i", bytes(4 * -(-len(TOKENIZER.token_bytes) // 32)))
    mask.fill(row)
    assert "token" in mask.problem


# --- what cannot be followed ---------------------------------------------------------------------

BOMBS = {
    "not_json": Constraint("json_schema", "{"),
    "no_schema": Constraint("json_schema", "[]"),
    "ref_to_itself": schema_of({"$ref": "#"}),
    "ref_cycle": schema_of(
        {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}
    ),
    "deep": Constraint("json_schema", '{"items":' * 10_000 + "{}" + "}" * 10_000),
    "deep_200": Constraint("json_schema", '{"items":' * 200 + "{}" + "}" * 200),
    "unique": schema_of({"type": "array", "uniqueItems": True}),
    "not": schema_of({"not": {"type": "string"}}),
    "remote": schema_of({"$ref": "https://example.com/schema.json"}),
    "huge_length": schema_of({"type": "string", "maxLength": 2**64 - 1}),
    "look_ahead": schema_of({"type": "string", "pattern": "^(?=a)b"}),
    "contradiction": schema_of({"type": "integer", "minimum": 5, "maximum": 1}),
    "too_long": Constraint("regex", "a" * 300_000),
    "back_reference": Constraint("regex", r"(a)\1"),
    "open_group": Constraint("regex", "("),
    "choices": Constraint("lark", "start: " + "|".join(f'"{n}"' for n in range(30_000))),
    "no_start": Constraint("lark", 'begin: "a"'),
    "unknown_rule": Constraint("lark", "start: nothing"),
    "endless_rule": Constraint("lark", "start: start"),
    "fault_inside": schema_of(
        {
            "type": "object",
            "properties": {"a": {"type": "string"}, "b": {"$ref": "#/properties/b"}},
            "required": ["a", "b"],
            "additionalProperties": False,
        }
    ),
    "kind": Constraint("bnf", "x"),
}
SERVED = {
    "huge_array": schema_of({"type": "array", "maxItems": 2**64 - 1, "items": {"type": "null"}}),
    "enum": schema_of({"enum": [f"word {n}" for n in range(10_000)]}),
    "nested_repeats": Constraint("regex", "(((a{1,9}){1,9}){1,9})"),
    "plus_plus": Constraint("regex", "(a+)+b"),
    "left_recursion": Constraint("lark", 'start: start "a" | "a"'),
    "ambiguous": Constraint("lark", 'start: e\ne: e e | "a"'),
    "options": Constraint("lark", '%llguidance {"no_forcing": true}\nstart: "a" "b"'),
    "hints": schema_of(
        {
            "type": "object",
            "properties": {"format": {"type": "string", "format": "zorg"}},
            "propertyNames": {"type": "string"},
        }
    ),
    "lenient": schema_of(POINT | {"x-guidance": {"lenient": True, "whitespace_flexible": False}}),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_in_time(plain, name):
    """Fault 11."""
    began = time.monotonic()
    with pytest.raises(InvalidRequestError) as caught:
        plain.shape(request(constraint=BOMBS[name]), "")
    assert caught.value.message
    assert len(caught.value.message) < 600
    assert time.monotonic() - began < DEADLINE_S + 60  # of a busy machine


@pytest.mark.parametrize("strict", [True, False])
def test_a_tool_that_is_nested_without_end_is_a_clear_error(factory, strict):
    nested = {}
    for _ in range(980):
        nested = {"type": "object", "properties": {"a": nested}}
    with pytest.raises(InvalidSchemaError):
        factory(Format()).shape(request(tools=(tool(nested, strict=strict),)), "")


@pytest.mark.parametrize("name", SERVED)
def test_what_only_looks_like_a_bomb_is_served(plain, name):
    mask = plain.shape(request(constraint=SERVED[name]), "").mask()
    ramble(mask, most=100)
    assert not mask.problem


def test_a_refused_schema_is_a_typed_error_that_names_its_field(plain):
    with pytest.raises(InvalidSchemaError) as caught:
        plain.shape(request(constraint=evolve(BOMBS["ref_cycle"], param="field")), "")
    assert caught.value.param == "field"
    assert (caught.value.code, caught.value.status) == ("invalid_schema", 400)


def test_what_a_pattern_may_not_hold_is_said(plain):
    with pytest.raises(InvalidSchemaError, match="look-around"):
        plain.shape(request(constraint=Constraint("regex", "(?=a)b")), "")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_compiler_that_was_disturbed_condemns_nothing(number):
    compiler = Compiler(300, {})
    sound = schema({"type": "object"})
    try:
        assert compiler.fault(schema(POINT)) == ""
        os.kill(compiler._child.pid, number)
        if number == signal.SIGSTOP:
            assert "time" in compiler.fault(sound)
        assert compiler.fault(sound) == ""
    finally:
        compiler.close()


def test_a_compiler_that_cannot_be_started_is_no_fault_of_the_grammar(monkeypatch):
    compiler, sound = Compiler(300, {}), schema({"type": "object"})
    with monkeypatch.context() as broken:
        broken.setattr(sys, "executable", "/nowhere/python")
        with pytest.raises(UnavailableError):
            compiler.fault(sound)
    try:
        assert compiler.fault(sound) == ""
    finally:
        compiler.close()


def test_a_killed_compiler_is_replaced(plain):
    slow = Constraint("lark", "start: " + "|".join(f'"{n % 10}"' for n in range(60_000)))
    with pytest.raises(InvalidSchemaError, match="too much"):
        plain.shape(request(constraint=slow), "")
    source = Constraint("regex", "after the bomb")
    assert plain.shape(request(constraint=source), "").mask().forced()


def test_options_in_a_clients_schema_count_for_nothing(plain):
    lenient = {"type": "string", "not": {}, "x-guidance": {"lenient": True}}
    with pytest.raises(InvalidSchemaError, match="not"):
        plain.shape(request(constraint=schema_of(lenient)), "")


# --- tools ---------------------------------------------------------------------------------------

CONTROLLED = Format(marks=("<call>", "</call>"))


def test_text_is_free_until_a_call_begins(factory, plain):
    calling = factory(Format())
    mask = calling.shape(request(tools=(tool(),)), "").mask()
    say(mask, 'I would {"say": anything} <tool')
    assert END in allowed(mask)
    say(mask, TOKENIZER.encode(" or not <tool_call>"))
    assert END not in allowed(mask)
    tokens = ramble(mask)
    body = said(tokens).removesuffix("</tool_call>")
    assert json.loads(body)["name"] == "move"
    jsonschema.validate(json.loads(body)["arguments"], POINT)


def test_a_call_may_be_a_control_token(factory):
    mask = factory(CONTROLLED).shape(request(tools=(tool(),)), "").mask()
    say(mask, 'I could say "<call>"')  # as text it is none
    assert END in allowed(mask)
    say(
        mask,
        [CALL, *TOKENIZER.encode('\n{"name": "move", "arguments": {"x": 1, "side": "left"}}\n')],
    )
    [closing] = allowed(mask)
    assert TOKENIZER.token_bytes[closing] == b"</call>"


@pytest.mark.parametrize("parallel", [True, False])
def test_required_calls_begin_at_once_and_are_as_many_as_asked_for(factory, parallel):
    must = ToolChoice(mode="required")
    asked = request(tools=(tool(),), tool_choice=must, parallel_tool_calls=parallel)
    mask = factory(Format()).shape(asked, "").mask()
    assert said(mask.forced()).startswith("<tool_call>")
    say(mask, '<tool_call>\n{"name": "move", "arguments": {"x": 1, "side": "left"}}\n</tool_call>')
    assert mask.is_complete is not parallel
    assert may_say(mask, "<tool_call>") or not parallel


def test_only_named_tools_may_be_called(factory):
    tools = (tool(), Tool(name="stop", parameters={"type": "object"}))
    choice = ToolChoice(mode="required", names=("stop",))
    mask = factory(Format()).shape(request(tools=tools, tool_choice=choice), "").mask()
    say(mask, '<tool_call>\n{"name": "')
    assert said(mask.forced()).startswith("stop")


def test_an_answer_is_a_call_or_fits_the_schema(factory):
    asked = request(tools=(tool(),), constraint=schema_of(POINT))
    shape = factory(Format()).shape(asked, "")
    mask = shape.mask()
    assert not may_say(mask, "h")
    say(mask, '{"x": 1')
    mask = shape.mask()
    say(mask, '<tool_call>\n{"name": "move')


@pytest.mark.parametrize("strict", [True, False])
def test_absurd_bounds_of_a_tool_are_relaxed(factory, strict):
    absurd = {
        "type": "object",
        "properties": {"s": {"type": "string", "maxLength": 2**64 - 1, "format": "zorg"}},
        "required": ["s"],
        "additionalProperties": False,
    }
    must = ToolChoice(mode="required")
    calling = factory(Format())
    asked = request(tools=(tool(absurd, strict=strict),), tool_choice=must)
    say(
        calling.shape(asked, "").mask(),
        '<tool_call>\n{"name": "move", "arguments": {"s": "anything"}}\n</tool_call>',
    )


def test_a_strict_tool_that_cannot_be_followed_is_refused(factory):
    odd = POINT | {"not": {"required": ["z"]}}
    with pytest.raises(InvalidSchemaError) as caught:
        factory(Format()).shape(request(tools=(tool(odd, strict=True),)), "")
    assert caught.value.param == "tools"


def test_a_pattern_that_cannot_be_followed_costs_only_itself(factory):
    text = {"type": "string", "pattern": "^(?!a)b"}
    odd = POINT | {"properties": POINT["properties"] | {"side": text}}
    must = ToolChoice(mode="required")
    mask = factory(Format()).shape(request(tools=(tool(odd),), tool_choice=must), "").mask()
    say(mask, '<tool_call>\n{"name": "move", "arguments": {"x": ')
    assert not may_say(mask, "n")
    say(mask, '1, "side": "any"')


class Manifold(Format):
    """Calls that begin in several ways."""

    def calls(self, tools, *, parallel):
        body = _body(tools[0])
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
def test_calls_may_begin_in_several_ways(factory, start):
    mask = factory(Manifold()).shape(request(tools=(tool(),)), "").mask()
    say(mask, start)
    assert not may_say(mask, "x")
    say(mask, 'move", "arguments": {"x": 1, "side": "left"}}')
    assert mask.is_complete


def test_what_looks_like_a_call_inside_a_text_is_text(factory):
    mask = factory(Manifold()).shape(request(tools=(tool(),)), "").mask()
    say(mask, 'A person is {"name": "x')
    assert END in allowed(mask)


def test_a_tool_whose_schema_is_beyond_help_takes_any_object(factory):
    must = ToolChoice(mode="required", names=())
    tools = (tool({"$ref": "#"}), Tool(name="turn", parameters=POINT))
    mask = factory(Format()).shape(request(tools=tools, tool_choice=must), "").mask()
    say(mask, '<tool_call>\n{"name": "move", "arguments": {"free": [1]}}\n</tool_call>')
    say(mask, '<tool_call>\n{"name": "turn", "arguments": {"x": ')
    assert not may_say(mask, "n")


def test_a_mark_inside_a_schema_is_text(factory):
    odd = POINT | {"properties": {"x": {"const": "<call>"}, "side": {"const": 1}}}
    must = ToolChoice(mode="required")
    mask = factory(CONTROLLED).shape(request(tools=(tool(odd),), tool_choice=must), "").mask()
    say(
        mask, [CALL, *TOKENIZER.encode('\n{"name": "move", "arguments": {"x": "<call>", "side": 1')]
    )


def test_a_call_that_must_be_and_cannot_is_refused(plain):
    asked = request(tools=(tool(),), tool_choice=ToolChoice(mode="required"))
    with pytest.raises(InvalidRequestError, match="called"):
        plain.shape(asked, "")
    assert plain.shape(request(tools=(tool(),)), "") is None


def test_a_strict_call_that_cannot_be_masked_is_refused(plain):
    with pytest.raises(InvalidRequestError, match="strict"):
        plain.shape(request(tools=(tool(strict=True),)), "")


def test_a_header_stands_before_a_text_that_is_constrained(factory):
    headed = factory(Format(marks=("<call>", "</call>"), header="<begin>final:"))
    point = '{"x": 1, "side": "left"}'
    for tools in ((), (tool(),)):
        mask = headed.shape(request(constraint=schema_of(POINT), tools=tools), "").mask()
        assert not may_say(mask, point)
        say(mask, [TOKENIZER.token_bytes.index(b"<begin>"), *TOKENIZER.encode(f"final:{point}")])
        assert mask.is_complete
    asked = request(constraint=schema_of(POINT), tools=(tool(),))
    say(headed.shape(asked, "").mask(), [CALL, *TOKENIZER.encode('\n{"name": "move')])


# --- thoughts ------------------------------------------------------------------------------------


def test_a_constraint_begins_after_the_thought_that_the_prompt_opened(factory):
    thinking = factory(Format(("", "</think>")))
    mask = thinking.shape(request(constraint=schema_of(POINT)), "").mask()
    say(mask, "let me } see: <b> 12")
    assert END not in allowed(mask)
    say(mask, TOKENIZER.encode("</think>"))
    assert not may_say(mask, "h")
    say(mask, '{"x": 1, "side": "right"}')
    assert mask.is_complete


def test_a_model_that_may_think_may_also_answer_at_once(factory):
    thinking = factory(Format(("<think>", "</think>")))
    shape = thinking.shape(request(constraint=schema_of(POINT)), "")
    for text in ('<think>hm, {</think>{"x": 1, "side": "left"}', '{"x": 1, "side": "left"}'):
        mask = shape.mask()
        say(mask, text)
        assert mask.is_complete
    mask = shape.mask()
    assert not may_say(mask, "h")


def test_a_call_in_a_thought_is_only_thought_of(factory):
    thinking = factory(Format(("<think>", "</think>")))
    mask = thinking.shape(request(tools=(tool(),)), "").mask()
    say(mask, "<think>should I <tool_call>? no</think>Well. <tool_call>\n")
    assert may_say(mask, '{"')
    assert not may_say(mask, "h")


@pytest.mark.parametrize("limit", [0, 1, 5])
def test_a_thought_that_takes_too_long_is_closed(factory, limit):
    thinking = factory(Format(("", "</think>")))
    mask = thinking.shape(request(reasoning_tokens=limit), "").mask()
    say(mask, "so it goes on"[:limit])
    assert said(mask.forced()) == "</think>"
    say(mask, mask.forced())
    assert allowed(mask) == set(range(len(TOKENIZER.token_bytes)))
    assert not mask.is_complete


def test_a_thought_is_not_closed_inside_a_character(factory):
    thinking = factory(Format(("", "</think>")))
    mask = thinking.shape(request(reasoning_tokens=1, constraint=schema_of(POINT)), "").mask()
    first, second = TOKENIZER.encode("\N{LATIN SMALL LETTER E WITH ACUTE}")
    say(mask, [first])
    say(mask, [second])
    say(mask, "</think>")
    say(mask, '{"x": ')


def test_a_limit_does_not_make_a_model_think(factory):
    thinking = factory(Format(("<think>", "</think>")))
    mask = thinking.shape(request(reasoning_tokens=3), "").mask()
    say(mask, "no need to think for long")
    assert mask.forced() == []


def test_a_thought_that_the_model_opens_itself_has_its_limit_too(factory):
    thinking = factory(Format(("<think>", "</think>")))
    mask = thinking.shape(request(reasoning_tokens=2), "").mask()
    say(mask, "<think>ab")
    assert said(sorted(allowed(mask))) == "</think>"
    say(mask, "</think>Anything, <think> as well.")
    assert END in allowed(mask)


def test_white_space_before_a_thought_is_none_of_the_answer(factory):
    thinking = factory(Format(("<think>", "</think>")))
    mask = thinking.shape(request(constraint=schema_of(POINT)), "").mask()
    say(mask, '\n<think>hm</think>{"x": 1, "side": "left"}')
    assert mask.is_complete
