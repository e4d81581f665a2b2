"""Schemas as common libraries write them, in answers and in calls of every notation: each keyword
means the same everywhere, and whatever a mask lets a model say is valid.
"""

from __future__ import annotations

import json
import random
from array import array

import jsonschema
import pytest
from lmx_constraints.engine import GrammarEngine

from lmx_kernel.text.formats import CallArguments, PlainFormat, find_format
from lmx_kernel.types import (
    ChatPrompt,
    Constraint,
    GenerationRequest,
    Message,
    TextPart,
    Tool,
    ToolChoice,
)

TEMPLATES = {
    "hermes": "{{ tools }}<tool_call>",
    "qwen3_coder": "<tool_call><function=",
    "glm": "<tool_call><arg_key>",
    "gemma": "<|tool_call>",
    "mistral": "[TOOL_CALLS][ARGS]",
}
CLOSERS = frozenset(b'"}],<|')
END = 256


class Bytes:
    """A vocabulary of a token a byte."""

    token_bytes = (*(bytes([n]) for n in range(256)), b"<end>")
    special_ids = end_ids = frozenset({END})
    chat_template = ""

    def encode(self, text, *, add_special=False, parse_special=False):
        return list(text.encode())


def obj(properties, required=None, **more):
    names = list(properties) if required is None else required
    return {"type": "object", "properties": properties, "required": names, **more}


TEXT, WHOLE, NULL = {"type": "string", "maxLength": 40}, {"type": "integer"}, {"type": "null"}
CAT = obj({"kind": {"const": "cat", "type": "string"}, "lives": WHOLE}, title="Cat")
DOG = obj({"kind": {"const": "dog", "default": "dog"}, "name": {**TEXT, "maxLength": 5}}, ["name"])
TREE = obj(
    {
        "name": {**TEXT, "maxLength": 3},
        "parts": {"type": "array", "items": {"$ref": "#/$defs/Tree"}},
    }
)
DRAFT_7 = "http://json-schema.org/draft-07/schema#"

# By the library that writes such: what the schema says, and a value that it forbids.
SCHEMAS = {
    "pydantic: optional fields": (
        obj({"a": {"anyOf": [WHOLE, NULL], "default": None}, "b": {**TEXT, "title": "B"}}, ["b"]),
        {"a": "x", "b": "x"},
    ),
    "pydantic: optional literal": (
        obj({"a": {"anyOf": [{"enum": ["x", "y"], "type": "string"}, NULL], "default": None}}),
        {"a": "z"},
    ),
    "pydantic: enum by reference with a description": (
        obj({"a": {"$ref": "#/$defs/Colour", "description": "A colour", "default": "red"}})
        | {"$defs": {"Colour": {"enum": ["red", "blue"], "title": "Colour", "type": "string"}}},
        {"a": "green"},
    ),
    "pydantic 1: reference within allOf": (
        obj({"a": {"title": "A", "allOf": [{"$ref": "#/definitions/Colour"}]}})
        | {"definitions": {"Colour": {"enum": ["red", "blue"]}}},
        {"a": "green"},
    ),
    "pydantic: discriminated union": (
        obj(
            {
                "pet": {
                    "oneOf": [{"$ref": "#/$defs/Cat"}, {"$ref": "#/$defs/Dog"}],
                    "discriminator": {
                        "propertyName": "kind",
                        "mapping": {"cat": "#/$defs/Cat", "dog": "#/$defs/Dog"},
                    },
                }
            }
        )
        | {"$defs": {"Cat": CAT, "Dog": DOG}},
        {"pet": {"kind": "cow", "lives": 1}},
    ),
    "pydantic: discriminated union with defaults for its tags": (
        obj({"pet": {"oneOf": [{"$ref": "#/$defs/A"}, {"$ref": "#/$defs/B"}]}})
        | {
            "$defs": {
                "A": obj(
                    {"kind": {"const": "a", "default": "a", "type": "string"}, "x": WHOLE}, ["x"]
                ),
                "B": obj(
                    {"kind": {"const": "b", "default": "b", "type": "string"}, "y": WHOLE}, ["y"]
                ),
            }
        },
        {"pet": {"z": 1}},
    ),
    "pydantic: recursion": (
        {"$ref": "#/$defs/Tree", "$defs": {"Tree": TREE}},
        {"name": "x", "parts": [{"name": "x"}]},
    ),
    "pydantic: dates": (
        obj({"at": {**TEXT, "format": "date-time"}, "on": {**TEXT, "format": "date"}}),
        {"at": "2020-02-30T00:00:00Z", "on": "2020-01-01"},
    ),
    "pydantic: identifiers": (
        obj({"id": {**TEXT, "format": "uuid"}, "ip": {**TEXT, "format": "ipv4"}}),
        {"id": "none", "ip": "127.0.0.1"},
    ),
    "pydantic: bounds": (
        obj(
            {
                "n": {**WHOLE, "exclusiveMinimum": 0, "maximum": 20},
                "s": {**TEXT, "minLength": 2, "maxLength": 4},
            }
        ),
        {"n": 0, "s": "abc"},
    ),
    "pydantic: pattern": (
        obj({"s": {**TEXT, "pattern": "^[a-c]{2}-[0-9]$"}}),
        {"s": "ab-x"},
    ),
    "pydantic: dict with constrained keys": (
        obj(
            {
                "d": {
                    "type": "object",
                    "additionalProperties": WHOLE,
                    "propertyNames": {"enum": ["a", "b"]},
                }
            }
        ),
        {"d": {"a": "x"}},
    ),
    "pydantic: tuple": (
        obj({"t": {"type": "array", "prefixItems": [WHOLE, TEXT], "minItems": 2, "maxItems": 2}}),
        {"t": [1, 2]},
    ),
    "pydantic: set of at most one": (
        obj({"t": {"type": "array", "items": WHOLE, "uniqueItems": True, "maxItems": 1}}),
        {"t": ["x"]},
    ),
    "pydantic: extra fields": (
        obj({"a": WHOLE}, additionalProperties={"type": "boolean"}),
        {"a": "x"},
    ),
    "zod 3: nullable and literal": (
        obj(
            {
                "a": {"type": ["string", "null"], "maxLength": 9},
                "b": {"type": "number", "const": 3},
            },
            additionalProperties=False,
        )
        | {"$schema": DRAFT_7},
        {"a": "x", "b": 4},
    ),
    "zod 3: intersection": (
        {
            "allOf": [obj({"a": WHOLE}), obj({"b": WHOLE, "c": TEXT}, ["b"])],
            "$schema": DRAFT_7,
            "type": "object",
        },
        {"a": 1},
    ),
    "zod 3: tuple": (
        obj(
            {
                "t": {
                    "type": "array",
                    "items": [WHOLE, {"type": "boolean"}],
                    "minItems": 2,
                    "maxItems": 2,
                }
            }
        )
        | {"$schema": DRAFT_7},
        {"t": [True, 1]},
    ),
    "zod 4: integers": (
        obj({"a": {**WHOLE, "minimum": -9007199254740991, "maximum": 9007199254740991}}),
        {"a": 1.5},
    ),
    "zod: union of types": (
        obj({"a": {"anyOf": [{"type": "number"}, {"type": "boolean"}]}}),
        {"a": "x"},
    ),
    "zod: one of two that overlap": (
        obj({"a": {"oneOf": [{**WHOLE, "maximum": 5}, {"type": "boolean"}]}}),
        {"a": 6},
    ),
    "zod: reference to a property": (
        obj({"a": obj({"x": WHOLE}), "b": {"$ref": "#/properties/a"}}),
        {"a": {"x": 1}, "b": {"x": "1"}},
    ),
    "fastmcp: choice beside type": (
        obj({"a": {"type": "string", "enum": ["x", None]}}),
        {"a": "y"},
    ),
    "openapi: nullable enum": (
        obj({"a": {"type": "string", "nullable": True, "enum": ["x", "y", None], "example": "x"}}),
        {"a": "z"},
    ),
    "by hand: no type": (
        {"properties": {"a": {"minimum": 3, "maximum": 4}}, "required": ["a"]},
        {"a": 5},
    ),
}


@pytest.fixture(scope="module")
def engines():
    made = {
        name: GrammarEngine(Bytes(), find_format(template)) for name, template in TEMPLATES.items()
    }
    made["answer"] = GrammarEngine(Bytes(), PlainFormat())
    yield made
    for engine in made.values():
        engine.close()


def planned(engines, name, schema):
    """Return the plan of an answer, or of a required call of a strict tool."""
    if name == "answer":
        constraint = Constraint("json_schema", json.dumps(schema))
        request = GenerationRequest(model="m", prompt=ChatPrompt(()), constraint=constraint)
        return engines[name].plan(request, "")
    tools = (Tool(name="f", parameters=schema, strict=True),)
    request = GenerationRequest(
        model="m",
        prompt=ChatPrompt((Message("user", (TextPart("hi"),)),), tools=tools),
        tool_choice=ToolChoice(mode="required"),
        parallel_tool_calls=False,
    )
    return engines[name].plan(request, "")


def read(name, text, schema):
    """Return the value that a model said."""
    if name == "answer":
        return json.loads(text)
    parser = find_format(TEMPLATES[name]).parser("", (Tool(name="f", parameters=schema),))
    pieces = [*parser.feed(text), *parser.flush()]
    return json.loads("".join(one.text for one in pieces if isinstance(one, CallArguments)))


def allowed(mask):
    row = array("i", bytes(4 * 9))
    if not mask.fill(row):
        return []
    return [n for n in range(END + 1) if row[n // 32] >> n % 32 & 1]


def walk(plan, text):
    """Return whether a mask lets a model say a text to its end."""
    mask = plan.mask()
    for token in text.encode():
        if mask.is_complete or token not in allowed(mask):
            return False
        mask.accept([token])
    return mask.is_complete or END in allowed(mask)


def say_anything(plan, seed, most=3000):
    """Return what a model that draws from all that is allowed says; None if it finds no end."""
    dice, mask, said = random.Random(seed), plan.mask(), bytearray()
    while len(said) < most:
        if mask.is_complete:
            return said.decode(errors="replace")
        choice = allowed(mask)
        if END in choice and dice.random() < 0.8:
            return said.decode(errors="replace")
        plain = [token for token in choice if 32 <= token < 127] or choice
        near = [token for token in plain if token in CLOSERS] or plain
        token = dice.choice(near if dice.random() < 0.6 else plain)
        if token == END:
            return said.decode(errors="replace")
        mask.accept([token])
        assert not mask.problem
        said.append(token)
    return None


@pytest.mark.parametrize("case", SCHEMAS)
@pytest.mark.parametrize("name", ["answer", *TEMPLATES])
def test_what_a_mask_allows_is_valid(engines, name, case):
    schema, _ = SCHEMAS[case]
    plan = planned(engines, name, schema)
    ended = 0
    for seed in range(6):
        if (text := say_anything(plan, seed)) is not None:
            jsonschema.validate(read(name, text, schema), schema)
            ended += 1
    assert ended


WRITERS = {
    "answer": json.dumps,
    "hermes": lambda value: (
        f'<tool_call>\n{{"name": "f", "arguments": {json.dumps(value)}}}\n</tool_call>'
    ),
    "mistral": lambda value: f"[TOOL_CALLS]f[ARGS]{json.dumps(value)}",
    "gemma": lambda value: f"<|tool_call>call:f{unquoted(value)}<tool_call|>",
    "qwen3_coder": lambda value: (
        "<tool_call>\n<function=f>\n"
        + "".join(f"<parameter={key}>\n{bare(one)}\n</parameter>\n" for key, one in value.items())
        + "</function>\n</tool_call>"
    ),
    "glm": lambda value: (
        "<tool_call>f\n"
        + "".join(
            f"<arg_key>{key}</arg_key>\n<arg_value>{bare(one)}</arg_value>\n"
            for key, one in value.items()
        )
        + "</tool_call>"
    ),
}


def bare(value):
    return value if isinstance(value, str) else json.dumps(value)


def unquoted(value):
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{unquoted(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(unquoted, value)) + "]"
    return f'<|"|>{value}<|"|>' if isinstance(value, str) else json.dumps(value)


@pytest.mark.parametrize("case", SCHEMAS)
@pytest.mark.parametrize("name", ["answer", *TEMPLATES])
def test_a_mask_forbids_what_is_invalid(engines, name, case):
    schema, wrong = SCHEMAS[case]
    assert not walk(planned(engines, name, schema), WRITERS[name](wrong))


NUMBER = obj({"a": {"type": "number"}})
MEANINGS = {
    "what is required but not described": (
        {"properties": {"a": WHOLE}, "required": ["a", "b"]},
        {"a": 1, "b": "x"},
        {"a": 1},
    ),
    "an object that lists its properties is closed": (
        obj({"a": WHOLE}),
        {"a": 1},
        {"a": 1, "b": 1},
    ),
    "its own word opens it": (
        obj({"a": WHOLE}, additionalProperties=True),
        {"a": 1, "b": "x"},
        {"a": "x"},
    ),
    "no parameters are none": ({}, {}, {"b": 1}),
    "an object without properties": ({"type": "object", "properties": {}}, {}, {"b": 1}),
    "a nested object that lists none is open": (
        obj({"a": {"type": "object"}}),
        {"a": {"b": 1}},
        {"a": 1},
    ),
    "digits": (NUMBER, {"a": 123456789.25}, {"a": 10**30}),
    "digits of an integer": (obj({"a": WHOLE}), {"a": -(10**17)}, {"a": 10**30}),
    "a union of numbers": (
        obj({"a": {"oneOf": [WHOLE, {"type": "number"}]}}),
        {"a": 1},
        {"a": "x"},
    ),
    "an email": (obj({"a": {**TEXT, "format": "email"}}), {"a": "a.b@c.de"}, {"a": "a@@b"}),
    "an address": (
        obj({"a": {**TEXT, "format": "uri"}}),
        {"a": "https://a.de/b?c=1"},
        {"a": "no address"},
    ),
    "a duration": (obj({"a": {**TEXT, "format": "duration"}}), {"a": "P1DT2H3M"}, {"a": "1 day"}),
    "a leap day": (
        obj({"a": {**TEXT, "format": "date"}}),
        {"a": "2024-02-29"},
        {"a": "2023-02-29"},
    ),
    "six of an address": (
        obj({"a": {**TEXT, "format": "ipv6"}}),
        {"a": "fe80::1:2"},
        {"a": "1::2::3"},
    ),
    "a format that nobody knows": (obj({"a": {**TEXT, "format": "zorg"}}), {"a": "x"}, {}),
    "a pattern and a format": (
        obj({"a": {**TEXT, "format": "date", "pattern": "^2024"}}),
        {"a": "2024-01-01"},
        {"a": "2023-01-01"},
    ),
    "an anchor inside a choice": (obj({"a": {**TEXT, "pattern": "b"}}), {"a": "abc"}, {"a": "acc"}),
    "a list's length": (
        obj({"a": {"type": "array", "items": WHOLE, "minItems": 2, "maxItems": 3}}),
        {"a": [1, 2]},
        {"a": [1]},
    ),
    "choices beside a type": (
        {
            "type": "object",
            "properties": {"a": WHOLE, "b": WHOLE},
            "required": ["a"],
            "anyOf": [{"required": ["b"]}, {"properties": {"a": {"maximum": 3}}}],
        },
        {"a": 9, "b": 1},
        {"a": 9},
    ),
}


@pytest.mark.parametrize("case", MEANINGS)
@pytest.mark.parametrize("name", ["answer", *TEMPLATES])
def test_a_keyword_means_the_same_everywhere(engines, name, case):
    schema, right, wrong = MEANINGS[case]
    if name == "answer" and schema == {}:
        return  # an answer may be anything then
    plan = planned(engines, name, schema)
    assert walk(plan, WRITERS[name](right))
    assert not walk(plan, WRITERS[name](wrong))


@pytest.mark.parametrize("name", ["answer", *TEMPLATES])
@pytest.mark.parametrize(
    ("wanted", "start", "repeated"),
    [
        ({"type": "number"}, "3.", "1"),
        ({"type": "number"}, "", "1"),
        ({"type": "number", "minimum": 0, "maximum": 1}, "0.", "3"),
        ({"anyOf": [{"type": "number"}, {"type": "null"}]}, "3.", "1"),
        (WHOLE, "-", "1"),
        ({"type": "integer", "minimum": 1}, "", "1"),
    ],
)
def test_a_number_has_an_end(engines, name, wanted, start, repeated):
    long = start + repeated * 40
    text = WRITERS[name]({"a": 0}).replace(": 0", f": {long}").replace(":0", f":{long}")
    text = text.replace("\n0\n", f"\n{long}\n").replace(">0<", f">{long}<")
    assert long in text
    assert not walk(planned(engines, name, obj({"a": wanted})), text)


@pytest.mark.parametrize("name", ["answer", *TEMPLATES])
def test_a_fraction_of_a_second_has_an_end(engines, name):
    plan = planned(engines, name, obj({"a": {**TEXT, "format": "date-time"}}))
    assert walk(plan, WRITERS[name]({"a": "2020-01-01T10:00:00.123456+01:00"}))
    assert not walk(plan, WRITERS[name]({"a": f"2020-01-01T10:00:00.{'1' * 40}Z"}))


def test_numbers_in_any_json_object_have_an_end(engines):
    request = GenerationRequest(
        model="m", prompt=ChatPrompt(()), constraint=Constraint("json_object")
    )
    plan = engines["answer"].plan(request, "")
    assert walk(plan, '{"a": [1.25, {"b": null}], "c": "x"}')
    assert not walk(plan, json.dumps({"a": 10**30}))
