"""Each family's way to think and to call, as its models write it."""

# ruff: noqa: RUF001 - a family uses signs that look like others
from __future__ import annotations

import json
from itertools import groupby

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper
from lmx_constraints.grammar import GrammarWriter

from lmx_kernel.text.formats import (
    CallArguments,
    CallEnded,
    CallStarted,
    Reasoning,
    Text,
    find_format,
)
from lmx_kernel.types import Message, TextPart, Tool, ToolCall

OBJECT = {
    "type": "object",
    "properties": {
        "text": {"type": "string"},
        "n": {"type": "integer"},
        "kind": {"type": "string", "enum": ["a", "b"]},
    },
    "required": ["text"],
}
TOOLS = (Tool(name="f", parameters=OBJECT), Tool(name="g"))
TRICKY = 'a "b"\n<c> \\ {é'
TRICKY_JSON = json.dumps({"text": TRICKY}, ensure_ascii=False)

TEMPLATES = {
    "hermes": "{{ tools }}<tool_call><think>",
    "qwen3_coder": "<tool_call><function=",
    "glm": "<tool_call><arg_key><think>",
    "llama3": "<|start_header_id|> parameters <|python_tag|>",
    "mistral": "[TOOL_CALLS][ARGS][THINK]",
    "mistral_list": "[TOOL_CALLS]",
    "gemma": "<|tool_call><|channel>thought",
    "function_gemma": "<start_function_call>",
    "deepseek": "<｜tool▁calls▁begin｜></think>",
    "deepseek_fenced": "<｜tool▁calls▁begin｜>```json",
    "harmony": "<|channel|><|message|>",
    "generic": "<|im_start|>",
}

# A call of f with the tricky text, one of g without arguments; None where only one can be.
CALLS = {
    "hermes": (
        '<tool_call>\n{"name": "f", "arguments": ' + TRICKY_JSON + "}\n</tool_call>",
        '<tool_call>\n{"name": "g", "arguments": {}}\n</tool_call>',
    ),
    "qwen3_coder": (
        f"<tool_call>\n<function=f>\n<parameter=text>\n{TRICKY}\n</parameter>\n</function>\n</tool_call>",
        "<tool_call>\n<function=g>\n</function>\n</tool_call>",
    ),
    "glm": (
        f"<tool_call>f\n<arg_key>text</arg_key>\n<arg_value>{TRICKY}</arg_value>\n</tool_call>",
        "<tool_call>g\n</tool_call>",
    ),
    "llama3": (
        '{"name": "f", "parameters": ' + TRICKY_JSON + "}",
        '; {"name": "g", "parameters": {}}',
    ),
    "mistral": (f"[TOOL_CALLS]f[ARGS]{TRICKY_JSON}", "[TOOL_CALLS]g[ARGS]{}"),
    "mistral_list": (
        '[TOOL_CALLS][{"name": "f", "arguments": ' + TRICKY_JSON + "}",
        ', {"name": "g", "arguments": {}}]',
    ),
    "gemma": (
        f'<|tool_call>call:f{{text:<|"|>{TRICKY}<|"|>}}<tool_call|>',
        "<|tool_call>call:g{}<tool_call|>",
    ),
    "function_gemma": (
        f"<start_function_call>call:f{{text:<escape>{TRICKY}<escape>}}<end_function_call>",
        "<start_function_call>call:g{}<end_function_call>",
    ),
    "deepseek": (
        f"<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{TRICKY_JSON}<｜tool▁call▁end｜>",
        "<｜tool▁call▁begin｜>g<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
    ),
    "deepseek_fenced": (
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n"
        f"{TRICKY_JSON}\n```<｜tool▁call▁end｜>",
        "<｜tool▁call▁begin｜>function<｜tool▁sep｜>g\n```json\n{}\n```<｜tool▁call▁end｜>"
        "<｜tool▁calls▁end｜>",
    ),
    "harmony": (
        f"<|channel|>commentary to=functions.f <|constrain|>json<|message|>{TRICKY_JSON}",
        "<|call|><|start|>assistant<|channel|>commentary to=functions.g <|constrain|>json"
        "<|message|>{}",
    ),
    "generic": (
        '<tool_call>\n{"name": "f", "arguments": ' + TRICKY_JSON + "}\n</tool_call>",
        '\n<tool_call>\n{"name": "g", "arguments": {}}\n</tool_call>',
    ),
}
THOUGHTS = {
    "mistral": ("[THINK]", "[/THINK]"),
    "gemma": ("<|channel>thought", "<channel|>"),
    "harmony": (
        "<|channel|>analysis<|message|>",
        "<|end|><|start|>assistant<|channel|>final<|message|>",
    ),
}
names = pytest.mark.parametrize("name", TEMPLATES)


def joined(pieces):
    """Join neighbours of a kind."""
    out = []
    for kind, group in groupby(pieces, type):
        if kind in (Text, Reasoning, CallArguments):
            out.append(kind("".join(piece.text for piece in group)))
        else:
            out += group
    return out


def read(name, chunks, *, prompt="", tools=TOOLS):
    """Return the pieces of an answer that comes in chunks."""
    parser = find_format(TEMPLATES[name]).parser(prompt, tools)
    pieces = [piece for chunk in chunks for piece in parser.feed(chunk)]
    return joined([*pieces, *parser.flush()])


def calls_of(pieces):
    """Return the complete calls: (name, arguments)."""
    found = []
    for piece in pieces:
        if isinstance(piece, CallStarted):
            found.append([piece.name, "", False])
        elif isinstance(piece, CallArguments):
            found[-1][1] += piece.text
        elif isinstance(piece, CallEnded):
            found[-1][2] = True
    return [(name, json.loads(text)) for name, text, is_complete in found if is_complete]


@names
def test_the_template_chooses_the_format(name):
    assert find_format(TEMPLATES[name]).name == name.removesuffix("_list").removesuffix("_fenced")


@names
def test_calls_one_after_the_other(name):
    pieces = read(name, ["".join(CALLS[name])])
    assert calls_of(pieces) == [("f", {"text": TRICKY}), ("g", {})]
    assert not any(isinstance(piece, Text) for piece in pieces)


@names
def test_a_thought_then_text(name):
    opening, closing = THOUGHTS.get(name, ("<think>", "</think>"))
    pieces = read(name, [f"{opening}\nwhy <b>{closing}\n\nSo it is. <tool>"])
    assert [type(piece) for piece in pieces] == [Reasoning, Text]
    assert pieces[0].text.strip() == "why <b>"
    assert pieces[1].text.lstrip() == "So it is. <tool>"


@names
def test_a_thought_that_the_prompt_opened(name):
    opening, closing = THOUGHTS.get(name, ("<think>", "</think>"))
    if name == "harmony":
        pytest.skip("its templates open no thought")
    pieces = read(name, [f"why{closing}\n\nSo."], prompt=f"assistant\n{opening}\n")
    assert pieces == [Reasoning("why"), Text("So.")]
    assert find_format(TEMPLATES[name]).thought(f"assistant\n{opening}\n") == ("", closing)
    assert find_format(TEMPLATES[name]).thought(f"{opening}\n\n{closing}\n\n") is None


@names
def test_the_option_for_reasoning_has_every_name_that_a_template_may_know(name):
    chosen = find_format(TEMPLATES[name])
    both = {"enable_thinking": False, "thinking": False}
    assert chosen.template_options({"enable_thinking": False}) == both
    given = {"enable_thinking": False, "thinking": True, "x": 1}
    assert chosen.template_options(given) == given
    assert chosen.template_options({"x": 1}) == {"x": 1}


def test_models_think_first_where_their_template_knows_thoughts():
    assert find_format(TEMPLATES["glm"]).thought("<|assistant|>") == ("<think>", "</think>")
    assert find_format(TEMPLATES["generic"]).thought("<|im_start|>assistant\n") is None
    opening, closing = find_format(TEMPLATES["harmony"]).thought("<|start|>assistant")
    assert read("harmony", [f"{opening}why{closing}So."]) == [Reasoning("why"), Text("So.")]
    header = find_format(TEMPLATES["harmony"]).header("<|start|>assistant")
    assert read("harmony", [f"{opening}why{closing}{header}So."]) == [Reasoning("why"), Text("So.")]


@names
def test_text_before_a_call_is_text(name):
    lead = "<|channel|>commentary<|message|>I look.<|end|><|start|>assistant"
    lead = lead if name == "harmony" else "I look.\n"
    if name == "llama3":
        return  # a bare call is only one where an answer begins
    pieces = read(name, [lead + CALLS[name][0]])
    assert pieces[0].text.strip() == "I look."
    assert calls_of(pieces) == [("f", {"text": TRICKY})]


@names
def test_without_tools_there_are_no_calls(name):
    assert not any(
        isinstance(piece, CallStarted) for piece in read(name, ["".join(CALLS[name])], tools=())
    )


@names
def test_arguments_stream_as_they_are_written(name):
    """Half of the arguments are out when half of them is in."""
    parser = find_format(TEMPLATES[name]).parser("", TOOLS)
    call = CALLS[name][0]
    half = call.index("<c>")
    said = joined(parser.feed(call[:half]))
    assert said[0] == CallStarted("f")
    assert said[1].text.startswith("{")
    assert r"\"b" in said[1].text


@names
@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_what_is_read_does_not_hang_on_the_cuts(name, data):
    opening, closing = THOUGHTS.get(name, ("<think>", "</think>"))
    parts = st.sampled_from(
        [opening, closing, *CALLS[name], " ", "\n", "plain", "<", "[", "{", '"', "}", "<tool", "é"]
    )
    text = "".join(data.draw(st.lists(parts, max_size=8)))
    text = text[: data.draw(st.integers(0, len(text)))]
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=8)))
    chunks = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert read(name, chunks) == read(name, [text]) == read(name, list(text))


@names
@settings(max_examples=50, deadline=None)
@given(cut=st.integers(0, 400), junk=st.text(max_size=10))
def test_a_broken_call_is_never_an_error_and_a_complete_one_is_always_valid(name, cut, junk):
    text = "".join(CALLS[name])
    pieces = read(name, [text[:cut], junk, text[cut + 1 :]])
    assert all(isinstance(arguments, dict) for _, arguments in calls_of(pieces))


@names
def test_an_answer_that_is_cut_after_a_call_shows_nothing_of_its_closing(name):
    call = CALLS[name][0]
    for cut in range(call.index("<c>"), len(call)):
        pieces = read(name, [call[:cut]])
        assert not any(isinstance(piece, Text) for piece in pieces), call[:cut]


@names
def test_a_call_without_a_name_stays_text(name):
    """What is cut before anything was said of it is shown as it is."""
    call = CALLS[name][0]
    if name == "harmony":
        return  # its header is no text
    start = call[: call.index("f")]
    assert read(name, [start]) == [Text(start)]


class Bytes:
    """A vocabulary of a token a byte."""

    tokens = (*(bytes([n]) for n in range(256)), b"<end>")
    token_bytes = tokens
    special_token_ids = (256,)
    eos_token_id = 256
    bos_token_id = None
    special_ids = end_ids = frozenset({256})

    def __call__(self, text):
        return list(text.encode() if isinstance(text, str) else text)


VOCABULARY = LLTokenizer(TokenizerWrapper(Bytes()))


def accepts(name, text, *, tools=TOOLS, parallel=True):
    syntax = find_format(TEMPLATES[name]).calls(tools, parallel=parallel)
    matcher = LLMatcher(VOCABULARY, GrammarWriter(Bytes()).calls(syntax), log_level=0)
    assert not matcher.is_error(), matcher.get_error()
    data = list(text.encode())
    return matcher.try_consume_tokens(data) == len(data) and matcher.is_accepting()


def between(name):
    return "\n" if name in ("hermes", "qwen3_coder", "glm") else ""


@names
def test_the_grammar_allows_what_the_parser_reads(name):
    first, second = CALLS[name]
    if name == "harmony":
        assert accepts(name, first)
    else:
        assert accepts(name, first + between(name) + second)


@names
def test_the_grammar_allows_one_call_where_only_one_may_be(name):
    first, second = CALLS[name]
    if name == "harmony":
        return
    assert not accepts(name, first + between(name) + second, parallel=False)


@names
def test_the_grammar_allows_no_other_tool(name):
    first, _ = CALLS[name]
    assert not accepts(
        name, first.replace("f", "h", 1) if name == "llama3" else first, tools=TOOLS[1:]
    )


@pytest.mark.parametrize("name", ["hermes", "qwen3_coder", "glm", "llama3", "mistral", "deepseek"])
def test_the_grammar_wants_what_the_schema_wants(name):
    """An argument is missing here."""
    first, _ = CALLS[name]
    empty = first.replace(TRICKY_JSON, "{}")
    for tag in (
        f"<parameter=text>\n{TRICKY}\n</parameter>\n",
        f"<arg_key>text</arg_key>\n<arg_value>{TRICKY}</arg_value>\n",
    ):
        empty = empty.replace(tag, "")
    assert empty != first
    closing = "<｜tool▁calls▁end｜>" if name == "deepseek" else ""
    assert accepts(name, first + closing)
    assert not accepts(name, empty + closing)


def test_values_between_tags_get_the_types_of_the_schema():
    def value(schema, text):
        tool = Tool(name="f", parameters={"properties": {"a": schema}})
        call = f"<function=f>\n<parameter=a>\n{text}\n</parameter>\n</function>"
        return calls_of(read("qwen3_coder", [call], tools=(tool,)))[0][1]["a"]

    assert value({"type": "string"}, "5") == "5"
    assert value({"type": "integer"}, "5") == 5
    assert value({"type": ["string", "null"]}, "5") == "5"
    assert value({"type": ["string", "null"]}, "null") is None
    assert value({"type": "boolean"}, "True") is True
    assert value({"type": "array"}, '["x", 1]') == ["x", 1]
    assert value({}, "plain words") == "plain words"
    assert value({"type": "number"}, "NaN") == "NaN"  # no JSON has it


NODE = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "next": {"$ref": "#/$defs/node"}},
    "required": ["name"],
}
ALL_KINDS = {
    "properties": {
        "count": {"type": "integer"},
        "kind": {"enum": ["big", 2, None]},
        "list": {"type": "array", "items": {"type": "boolean"}},
        "node": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
        "Rate": {"type": ["number", "null"]},
        "some": {},
    },
    "required": ["kind", "count"],
    "$defs": {"node": NODE},
}


@pytest.mark.parametrize(
    ("arguments", "fits"),
    [
        ("count:1,kind:2", True),
        ("count:-12,kind:'big',list:[true,false],node:{name:'a',next:{name:'b'}},Rate:1.5", True),
        ("count:1,kind:null,list:[],node:null,Rate:null,some:{a:[1,'x']}", True),
        ("count:1", False),
        ("kind:2,count:1", False),
        ("count:1.5,kind:2", False),
        ("count:1,kind:3", False),
        ("count:1,kind:2,other:3", False),
        ("count:1,kind:2,list:[1]", False),
        ("count:1,kind:2,node:{next:{name:'b'}}", False),
        ("count:1,kind:2,Rate:'x'", False),
        (",count:1,kind:2", False),
    ],
)
@pytest.mark.parametrize("name", ["gemma", "function_gemma"])
def test_arguments_that_are_no_json_are_held_to_their_schema(name, arguments, fits):
    kind = find_format(TEMPLATES[name])
    written = f"{kind.opening}call:f{{{arguments}}}{kind.closing}".replace("'", kind.quote)
    assert accepts(name, written, tools=(Tool(name="f", parameters=ALL_KINDS),)) is fits


def test_gemma_writes_values_of_all_kinds():
    text = '<|tool_call>call:f{a:1.5,b:true,c:[<|"|>x<|"|>,null,[]],d:{e:{}},g:word}<tool_call|>'
    expected = {"a": 1.5, "b": True, "c": ["x", None, []], "d": {"e": {}}, "g": "word"}
    assert calls_of(read("gemma", [text])) == [("f", expected)]


@pytest.mark.parametrize(
    "text",
    [
        '{"name": "f", "arguments": {"a": 1}}',
        '{"arguments": {"a": 1}, "name": "f"}',
        '[{"name": "f", "parameters": {"a": 1}}]',
        '{"type": "function", "name": "f", "arguments": "{\\"a\\": 1}"}',
        '<tool_call>{"name": "f", "arguments": {"a": 1}}}</tool_call>',
        '<tool_call>[{"name": "f", "arguments": {"a": 1}}]</tool_call>',
    ],
)
def test_calls_as_small_models_write_them(text):
    pieces = read("generic", [text])
    assert calls_of(pieces) == [("f", {"a": 1})]
    assert not any(isinstance(piece, Text) for piece in pieces)


@pytest.mark.parametrize(
    "text",
    [
        '{"name": "Ada", "arguments": {}}',
        '{"answer": 42}',
        "[1, 2]",
        '{"name": "f", "name": "g"}',
        "<tool_call> is how one begins",
    ],
)
def test_json_that_calls_no_tool_is_text(text):
    pieces = read("generic", [text])
    assert calls_of(pieces) == []
    if not any(isinstance(piece, CallStarted) for piece in pieces):
        assert pieces == [Text(text)]


@pytest.mark.parametrize("name", ["hermes", "gemma", "mistral"])
def test_deep_nesting_is_no_call_and_no_crash(name):
    call = CALLS[name][0]
    start = call[: call.index("text" if name == "gemma" else '"text')]
    key = "a:" if name == "gemma" else '"a":'
    pieces = read(name, [start + f"{key}{{" * 100_000])
    assert calls_of(pieces) == []


def test_tools_are_explained_to_a_model_that_was_not_trained_for_them():
    generic = find_format(TEMPLATES["generic"])
    messages = [
        Message("system", (TextPart("Be kind."),)),
        Message("user", (TextPart("hi"),)),
        Message("assistant", (), tool_calls=(ToolCall("1", "f", '{"n": 1}'),)),
        Message("tool", (TextPart("seen"),), tool_call_id="1"),
        Message("user", (TextPart("and?"),)),
    ]
    system, user, assistant, result = generic.explain(messages, TOOLS)
    texts = ["".join(part.text for part in one.parts) for one in (system, user, assistant, result)]
    assert texts[0].startswith("Be kind.")
    assert json.dumps(OBJECT) in texts[0]
    assert calls_of(read("generic", [texts[2]])) == [("f", {"n": 1})]
    assert (result.role, "seen" in texts[3], texts[3].endswith("and?")) == ("user", True, True)
