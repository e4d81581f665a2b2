"""Grammars that cannot be followed, or only at too high a price, and the process that finds out."""

from __future__ import annotations

import os
import signal
import sys
import time

import pytest
from attrs import evolve
from lmx_constraints.checker import GrammarChecker
from lmx_constraints.grammar import json_grammar
from lmx_constraints.trial import DEADLINE_S
from mask_driver import POINT, Format, ramble, request, schema_of, tool

from lmx_kernel.errors import InvalidRequestError, InvalidSchemaError, UnavailableError
from lmx_kernel.types import Constraint

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
        plain.plan(request(constraint=BOMBS[name]), "")
    assert caught.value.message
    assert len(caught.value.message) < 600
    assert time.monotonic() - began < DEADLINE_S + 60  # of a busy machine


@pytest.mark.parametrize("strict", [True, False])
def test_a_tool_that_is_nested_without_end_is_a_clear_error(engine, strict):
    nested = {}
    for _ in range(980):
        nested = {"type": "object", "properties": {"a": nested}}
    with pytest.raises(InvalidSchemaError):
        engine(Format()).plan(request(tools=(tool(nested, strict=strict),)), "")


@pytest.mark.parametrize("name", SERVED)
def test_what_only_looks_like_a_bomb_is_served(plain, name):
    mask = plain.plan(request(constraint=SERVED[name]), "").mask()
    ramble(mask, most=100)
    assert not mask.problem


def test_a_refused_schema_is_a_typed_error_that_names_its_field(plain):
    with pytest.raises(InvalidSchemaError) as caught:
        plain.plan(request(constraint=evolve(BOMBS["ref_cycle"], param="field")), "")
    assert caught.value.param == "field"
    assert (caught.value.code, caught.value.status) == ("invalid_schema", 400)


def test_what_a_pattern_may_not_hold_is_said(plain):
    with pytest.raises(InvalidSchemaError, match="look-around"):
        plain.plan(request(constraint=Constraint("regex", "(?=a)b")), "")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_checker_that_was_killed_or_stopped_condemns_no_grammar(number):
    checker = GrammarChecker(300, {})
    sound = json_grammar({"type": "object"})
    try:
        assert checker.problem_with(json_grammar(POINT)) == ""
        os.kill(checker._idle[-1].pid, number)
        if number == signal.SIGSTOP:
            assert "time" in checker.problem_with(sound)
        assert checker.problem_with(sound) == ""
    finally:
        checker.close()


def test_a_checker_that_cannot_be_started_is_not_the_fault_of_the_grammar(monkeypatch):
    checker, sound = GrammarChecker(300, {}), json_grammar({"type": "object"})
    with monkeypatch.context() as broken:
        broken.setattr(sys, "executable", "/nowhere/python")
        with pytest.raises(UnavailableError):
            checker.problem_with(sound)
    try:
        assert checker.problem_with(sound) == ""
    finally:
        checker.close()


def test_a_killed_checker_is_replaced(plain):
    slow = Constraint("lark", "start: " + "|".join(f'"{n % 10}"' for n in range(60_000)))
    with pytest.raises(InvalidSchemaError, match="too much"):
        plain.plan(request(constraint=slow), "")
    source = Constraint("regex", "after the bomb")
    assert plain.plan(request(constraint=source), "").mask().forced()


def test_options_in_a_clients_schema_count_for_nothing(plain):
    lenient = {"type": "string", "not": {}, "x-guidance": {"lenient": True}}
    with pytest.raises(InvalidSchemaError, match="not"):
        plain.plan(request(constraint=schema_of(lenient)), "")
