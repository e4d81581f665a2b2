"""What the models of each family write, token by token through the masks of real requests."""

# ruff: noqa: RUF001 - a family uses signs that look like others
from __future__ import annotations

import json
import re
from array import array

import pytest
from lmx_constraints.engine import GrammarEngine

from lmx_kernel.text.formats import CallArguments, CallEnded, CallStarted, find_format
from lmx_kernel.types import ChatPrompt, GenerationRequest, Message, TextPart, Tool, ToolChoice

CITY = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
    "required": ["city"],
    "additionalProperties": False,
}
WEATHER = Tool(name="weather", parameters=CITY, strict=True)

# The template's signs, the control tokens of the vocabulary, and the end of the prompt.
FAMILIES = {
    "hermes": ("<tool_call>", (), "assistant\n"),
    "qwen3_coder": ("<tool_call><function=", (), "assistant\n"),
    "glm": ("<tool_call><arg_key>", ("<tool_call>", "</tool_call>", "<arg_key>", "</arg_key>",
                                     "<arg_value>", "</arg_value>"), "<|assistant|>"),
    "glm_text": ("<tool_call><arg_key>", (), "<|assistant|>"),
    "llama3": ("<|start_header_id|>parameters", ("<|python_tag|>",), "assistant\n\n"),
    "mistral": ("[TOOL_CALLS][ARGS]", ("[TOOL_CALLS]", "[ARGS]", "[CALL_ID]"), "[/INST]"),
    "mistral_list": ("[TOOL_CALLS]", ("[TOOL_CALLS]",), "[/INST]"),
    "gemma": ("<|tool_call>", ("<|tool_call>", "<tool_call|>", '<|"|>'), "model\n"),
    "gemma_text": ("<|tool_call>", (), "model\n"),
    "function_gemma": ("<start_function_call>", ("<start_function_call>", "<end_function_call>",
                                                 "<escape>"), "model\n"),
    "deepseek": ("<｜tool▁calls▁begin｜>", ("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>",
                 "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>", "<｜tool▁sep｜>"),
                 "<｜Assistant｜>"),
    "harmony": ("<|channel|><|message|>", ("<|start|>", "<|channel|>", "<|message|>",
                "<|constrain|>", "<|end|>"), "<|start|>assistant"),
    "generic": ("<|im_start|>", (), "assistant\n"),
}  # fmt: skip
THOUGHT = "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant"
ENDS = ("<eos>", "<|call|>")


class Vocabulary:
    """Bytes and control tokens."""

    def __init__(self, controls):
        texts = [*controls, *ENDS]
        self.token_bytes = (*(bytes([n]) for n in range(256)), *(text.encode() for text in texts))
        self.special_ids = frozenset(range(256, len(self.token_bytes)))
        self.end_ids = frozenset(range(256 + len(controls), len(self.token_bytes)))
        self._ids = dict(zip(texts, range(256, len(self.token_bytes)), strict=True))
        self._split = re.compile(f"({'|'.join(map(re.escape, texts))})")

    def encode(self, text, *, add_special=False, parse_special=False):
        parts = self._split.split(text) if parse_special else [text]
        return [
            token
            for part in parts
            for token in ([self._ids[part]] if part in self._ids else part.encode())
        ]


@pytest.fixture(scope="module")
def said():
    """Return how much of a text the mask of a request lets a model say, and whether it may end."""
    made = {}

    def say(family, text, *, tools=(WEATHER,), choice="auto"):
        template, controls, prompt = FAMILIES[family]
        if family not in made:
            made[family] = GrammarEngine(Vocabulary(controls), find_format(template))
        request = GenerationRequest(
            model="m",
            prompt=ChatPrompt((Message("user", (TextPart("hi"),)),), tuple(tools)),
            tool_choice=ToolChoice(mode=choice),
        )
        return _walk(made[family].plan(request, prompt).mask(), Vocabulary(controls), text)

    yield say
    for engine in made.values():
        engine.close()


def _walk(mask, vocabulary, text):
    passed = []
    for token in vocabulary.encode(text, parse_special=True):
        if mask.is_complete or not _may(mask, vocabulary, token):
            return b"".join(passed).decode(errors="replace"), False
        mask.accept([token])
        passed.append(vocabulary.token_bytes[token])
    ends = vocabulary.end_ids
    return text, mask.is_complete or any(_may(mask, vocabulary, end) for end in ends)


def _may(mask, vocabulary, token):
    row = array("I", [0] * (len(vocabulary.token_bytes) // 32 + 1))
    is_free = not mask.fill(row)
    assert not mask.problem
    return is_free or bool(row[token // 32] >> token % 32 & 1)


def calls_of(family, text, tools):
    """Return the complete calls that the parser reads: (name, arguments)."""
    template, _, prompt = FAMILIES[family]
    parser = find_format(template).parser(prompt, tools)
    found, arguments = [], ""
    for piece in (*parser.feed(text), *parser.flush()):
        if isinstance(piece, CallStarted):
            name, arguments = piece.name, ""
        elif isinstance(piece, CallArguments):
            arguments += piece.text
        elif isinstance(piece, CallEnded):
            found.append((name, json.loads(arguments)))
    return found


D_ALL, D_END = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"
D_CALL = '<｜tool▁call▁begin｜>weather<｜tool▁sep｜>{"city": "Rome"}<｜tool▁call▁end｜>'
Q_CALL = "<function=weather>\n<parameter=city>\nRome\n</parameter>\n</function>"
JSON = '{"city":"Rome"}'
G_CALL = "weather<arg_key>city</arg_key><arg_value>Rome</arg_value>"
# Answers that are nothing but a call of the weather in Rome.
CALLS = [
    ("hermes", '<tool_call>\n{"name": "weather", "arguments": {"city": "Rome"}}\n</tool_call>'),
    ("qwen3_coder", f"<tool_call>\n{Q_CALL}\n</tool_call>"),
    ("qwen3_coder", f"{Q_CALL}\n</tool_call>"),
    ("glm", f"<tool_call>{G_CALL.replace('<arg', chr(10) + '<arg')}\n</tool_call>"),
    ("glm", f"<tool_call>{G_CALL}</tool_call>"),
    ("glm_text", f"<tool_call>{G_CALL}</tool_call>"),
    ("llama3", '{"name": "weather", "parameters": {"city": "Rome"}}'),
    ("llama3", '<|python_tag|>{"name": "weather", "parameters": {"city": "Rome"}}'),
    ("mistral", f"[TOOL_CALLS]weather[ARGS]{JSON}"),
    ("mistral", f"[TOOL_CALLS]weather[CALL_ID]abc123XYZ[ARGS]{JSON}"),
    ("mistral_list", '[TOOL_CALLS][{"name": "weather", "arguments": {"city": "Rome"}}]'),
    ("mistral_list", '[TOOL_CALLS] [{"name": "weather", "arguments": {"city": "Rome"}, '
                     '"id": "abc123XYZ"}]'),
    ("gemma", '<|tool_call>call:weather{city:<|"|>Rome<|"|>}<tool_call|>'),
    ("gemma_text", '<|tool_call>call:weather{city:<|"|>Rome<|"|>}<tool_call|>'),
    ("function_gemma", "<start_function_call>call:weather{city:<escape>Rome<escape>}"
                       "<end_function_call>"),
    ("deepseek", f"{D_ALL}{D_CALL}{D_END}"),
    ("deepseek", D_CALL),
    ("harmony", f"<|channel|>commentary to=functions.weather <|constrain|>json<|message|>{JSON}"),
    ("harmony", f"<|channel|>commentary to=functions.weather json<|message|>{JSON}"),
    ("harmony", f"<|channel|>commentary to=functions.weather<|message|>{JSON}"),
    ("harmony", f"<|channel|>analysis to=functions.weather<|message|>{JSON}"),
    ("harmony", f" to=functions.weather<|channel|>commentary json<|message|>{JSON}"),
    ("harmony", f"{THOUGHT} to=functions.weather<|channel|>commentary <|constrain|>json"
                f"<|message|>{JSON}"),
    ("generic", '<tool_call>\n{"name": "weather", "arguments": {"city": "Rome"}}\n</tool_call>'),
    ("generic", '{"name": "weather", "arguments": {"city": "Rome"}}'),
]  # fmt: skip


@pytest.mark.parametrize("choice", ["auto", "required"])
@pytest.mark.parametrize(("family", "text"), CALLS)
def test_a_call_as_the_model_writes_it(said, family, text, choice):
    assert said(family, text, choice=choice) == (text, True)
    assert calls_of(family, text, (WEATHER,)) == [("weather", {"city": "Rome"})]


@pytest.mark.parametrize("choice", ["auto", "required"])
@pytest.mark.parametrize(("family", "text"), CALLS)
def test_every_way_to_begin_a_call_leads_to_a_tool_that_there_is(said, family, text, choice):
    wrong = text.replace("weather", "whatever")
    assert said(family, wrong, choice=choice)[0].endswith("w")


@pytest.mark.parametrize(
    ("family", "text"),
    [
        ("llama3", '{"name":"weather'),
        ("llama3", '{"type": "function", "name": "weather'),
        ("generic", '[{"name":"weather'),
    ],
)
def test_a_call_without_a_mark_is_one_in_other_spellings_too(said, family, text):
    assert said(family, text)[0] == text
    assert said(family, text.replace("weather", "whatever"))[0].endswith("w")


ANSWERS = [
    *((family, "No <b>need</b>: it is {warm} [1].") for family in FAMILIES if family != "harmony"),
    ("llama3", 'Here is some JSON: {"name": "John"}'),
    ("llama3", '{"city": "Rome"}'),
    ("generic", 'Here is some JSON: {"name": "John"}'),
    ("harmony", "<|channel|>final<|message|>No need."),
    ("harmony", f"{THOUGHT}<|channel|>final<|message|>No need."),
    ("harmony", f"{THOUGHT}<|channel|>analysis<|message|>Hm!<|end|><|start|>assistant"
                "<|channel|>final<|message|>No need."),
    ("harmony", f"{THOUGHT}<|channel|>commentary<|message|>I look.<|end|><|start|>assistant"
                "<|channel|>final<|message|>No need."),
]  # fmt: skip


@pytest.mark.parametrize(("family", "text"), ANSWERS)
def test_an_answer_in_words(said, family, text):
    assert said(family, text) == (text, True)
    assert calls_of(family, text, (WEATHER,)) == []


@pytest.mark.parametrize(
    ("family", "text"), [(one, text) for one, text in ANSWERS if "final" in text]
)
def test_words_are_no_call_where_one_is_required(said, family, text):
    assert said(family, text, choice="required")[1] is False


@pytest.mark.parametrize("value", ["", "a << b", "a <| b", "<em>x</em>", "a<", 'say "hi" {é}\n'])
@pytest.mark.parametrize("family", ["gemma", "gemma_text", "function_gemma", "glm", "glm_text"])
def test_a_text_may_hold_signs_of_a_mark(said, family, value):
    text = next(text for one, text in CALLS if one == family).replace("Rome", value)
    assert said(family, text) == (text, True)
    assert calls_of(family, text, (WEATHER,)) == [("weather", {"city": value})]


def written(family, arguments):
    """Return a call of f with arguments between tags."""
    if family == "qwen3_coder":
        pairs = [f"<parameter={key}>\n{value}\n</parameter>\n" for key, value in arguments.items()]
        return f"<tool_call>\n<function=f>\n{''.join(pairs)}</function>\n</tool_call>"
    if family.startswith("glm"):
        pairs = [
            f"<arg_key>{key}</arg_key>\n<arg_value>{value}</arg_value>\n"
            for key, value in arguments.items()
        ]
        return f"<tool_call>f\n{''.join(pairs)}</tool_call>"
    pairs = [f'{key}:<|"|>{value}<|"|>' for key, value in arguments.items()]
    return f"<|tool_call>call:f{{{','.join(pairs)}}}<tool_call|>"


OPTIONAL = {"anyOf": [{"type": "string"}, {"type": "null"}]}
COLOUR = {"properties": {"a": {"$ref": "#/$defs/c"}}, "$defs": {"c": {"enum": ["red", 7, None]}}}
SHORT = {"type": "string", "minLength": 2, "maxLength": 4}


@pytest.mark.parametrize(
    ("parameters", "values", "arguments"),
    [
        ({}, {"x": "1", "y": "two"}, None),
        ({}, {}, {}),
        ({"additionalProperties": True}, {"x": "1", "y": "two"}, {"x": 1, "y": "two"}),
        ({"type": "object"}, {}, {}),
        ({"additionalProperties": {"type": "string"}}, {"x": "1"}, {"x": "1"}),
        ({"additionalProperties": {"type": "integer"}}, {"x": "one"}, None),
        ({"properties": {"b": {}}, "additionalProperties": True}, {"b": "w", "bb": "1"},
         {"b": "w", "bb": 1}),
        ({"properties": {"b": {}}}, {"c": "1"}, None),
        ({"properties": {}}, {"c": "1"}, None),
        ({"properties": {"a": {"type": ["string", "null"]}}}, {"a": "Rome"}, {"a": "Rome"}),
        ({"properties": {"a": OPTIONAL}}, {"a": "5"}, {"a": "5"}),
        ({"properties": {"a": OPTIONAL}}, {"a": "null"}, {"a": None}),
        ({"properties": {"a": {"type": ["string", "integer"]}}}, {"a": "5"}, {"a": 5}),
        (COLOUR, {"a": "red"}, {"a": "red"}),
        (COLOUR, {"a": "7"}, {"a": 7}),
        (COLOUR, {"a": "8"}, None),
        ({"properties": {"a": {"const": "x"}}}, {"a": "x"}, {"a": "x"}),
        ({"properties": {"a": {"type": "string", "const": "x"}}}, {"a": "y"}, None),
        ({"properties": {"a": {"type": "integer", "maximum": 5}}}, {"a": "6"}, None),
        ({"properties": {"a": SHORT}}, {"a": "abcd"}, {"a": "abcd"}),
        ({"properties": {"a": SHORT}}, {"a": "abcde"}, None),
        ({"properties": {"a": SHORT}}, {"a": ""}, None),
    ],
)  # fmt: skip
@pytest.mark.parametrize("family", ["qwen3_coder", "glm", "glm_text"])
def test_arguments_between_tags_fit_their_schema(said, family, parameters, values, arguments):
    """``arguments`` is None where the mask forbids the values."""
    tool, text = Tool(name="f", parameters=parameters), written(family, values)
    assert said(family, text, tools=[tool])[1] is (arguments is not None)
    if arguments is not None:
        assert calls_of(family, text, [tool]) == [("f", arguments)]


@pytest.mark.parametrize(("value", "fits"), [("abcd", True), ("a", False), ("abcde", False)])
@pytest.mark.parametrize("family", ["gemma", "gemma_text"])
def test_marked_texts_are_as_long_as_their_schema_wants(said, family, value, fits):
    tool = Tool(name="f", parameters={"properties": {"a": SHORT}})
    assert said(family, written(family, {"a": value}), tools=[tool])[1] is fits


FAR = {key: {"type": "string", "maxLength": 4096 - n} for n, key in enumerate("abc")}


@pytest.mark.parametrize("family", ["qwen3_coder", "glm", "gemma"])
def test_far_bounds_do_not_break_long_texts(said, family):
    tool = Tool(name="f", parameters={"properties": FAR})
    text = written(family, dict.fromkeys(FAR, "ab <é" * 600))
    assert said(family, text, tools=[tool]) == (text, True)


@pytest.mark.parametrize("wanted", [{"type": ["string", None]}, {"type": [{}]}, {"type": 5}, 5])
@pytest.mark.parametrize("family", ["qwen3_coder", "glm", "gemma"])
def test_an_odd_schema_costs_no_call(said, family, wanted):
    tool = Tool(name="f", parameters={"properties": {"a": wanted}})
    text = written(family, {"a": "Rome"})
    assert said(family, text, tools=[tool]) == (text, True)
    assert calls_of(family, text, [tool]) == [("f", {"a": "Rome"})]


@pytest.mark.parametrize("tool", ["mcp:read", "server/read", "read@2", "a.b-c"])
@pytest.mark.parametrize(("family", "text"), CALLS)
def test_names_of_tools_may_have_signs(said, family, text, tool):
    tools, named = (Tool(name=tool, parameters=CITY),), text.replace("weather", tool)
    assert said(family, named, tools=tools) == (named, True)
    assert calls_of(family, named, tools) == [(tool, {"city": "Rome"})]


@pytest.mark.parametrize("template", [D_ALL, f"{D_ALL}```json"])
def test_the_call_that_is_explained_is_one_that_the_mask_allows(template):
    chat_format = find_format(template)
    tool = Tool(name="the name", parameters={"additionalProperties": True})
    [system, *_] = chat_format.explain([Message("user", (TextPart("hi"),))], [tool])
    told = system.parts[0].text
    call = told[told.index(D_ALL) : told.index(D_END) + len(D_END)]
    engine = GrammarEngine(Vocabulary(()), chat_format)
    request = GenerationRequest(
        model="m", prompt=ChatPrompt((), (tool,)), tool_choice=ToolChoice(mode="required")
    )
    try:
        mask = engine.plan(request, "").mask()
        assert _walk(mask, Vocabulary(()), call) == (call, True)
    finally:
        engine.close()
