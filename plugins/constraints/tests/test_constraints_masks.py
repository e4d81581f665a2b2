"""Constrained text: what a model that says anything at all may say under a mask."""

from __future__ import annotations

import json
from array import array

import jsonschema
import pytest
from mask_driver import (
    END,
    POINT,
    TOKENIZER,
    Tokenizer,
    allowed,
    may_say,
    ramble,
    request,
    said,
    say,
    schema_of,
)

from lmx_kernel.text.constraints import is_constrained
from lmx_kernel.text.formats import PlainFormat
from lmx_kernel.types import Constraint


def test_any_text_needs_no_mask(plain):
    assert not is_constrained(request())
    assert plain.plan(request(), "") is None


@pytest.mark.parametrize("seed", range(5))
def test_a_schema_is_followed_to_its_end(plain, seed):
    plan = plain.plan(request(constraint=schema_of(POINT)), "")
    mask = plan.mask()
    tokens = ramble(mask, seed)
    assert mask.is_complete
    jsonschema.validate(json.loads(said(tokens)), POINT)


def test_a_json_object_is_an_object(plain):
    mask = plain.plan(request(constraint=Constraint("json_object")), "").mask()
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
    plan = plain.plan(request(constraint=Constraint("regex", pattern)), "")
    mask = plan.mask()
    say(mask, right)
    assert mask.is_complete
    mask = plan.mask()
    mask.accept(TOKENIZER.encode(wrong))
    assert not mask.is_complete or mask.problem


def test_a_grammar_of_ones_own(plain):
    source = 'start: "hi " NAME ("," NAME)*\nNAME: /[a-c]{3}/'
    mask = plain.plan(request(constraint=Constraint("lark", source)), "").mask()
    assert said(mask.forced()) == "hi "
    say(mask, "hi abc,bca")
    assert not mask.is_complete
    assert END in allowed(mask)
    mask.accept([END])
    assert mask.is_complete


def test_whitespace_has_an_end(plain):
    mask = plain.plan(request(constraint=schema_of(POINT)), "").mask()
    say(mask, "{\n" + " " * 32)
    assert not may_say(mask, " ")
    assert not may_say(mask, "\n")


def test_forced_tokens_are_those_that_would_be_drawn(plain):
    plan = plain.plan(request(constraint=schema_of(POINT)), "")
    mask, slow = plan.mask(), plan.mask()
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
    plan = plain.plan(request(constraint=schema_of(POINT)), "")
    old, new = plan.mask(), plan.mask()
    tokens = TOKENIZER.encode('{"x": 12, "side": "left"}')
    say(old, tokens[:at])
    new.accept(tokens[:at])
    assert allowed(new) == allowed(old)
    assert new.forced() == old.forced()
    assert new.is_complete == old.is_complete


def test_candidates_do_not_share_a_mask(plain):
    plan = plain.plan(request(constraint=schema_of(POINT)), "")
    one, other = plan.mask(), plan.mask()
    say(one, '{"x": 1')
    assert may_say(other, "{")
    assert not may_say(other, ",")


def test_what_leaves_the_grammar_is_a_problem_and_never_free(plain):
    mask = plain.plan(request(constraint=schema_of(POINT)), "").mask()
    mask.accept(TOKENIZER.encode("nonsense"))
    assert mask.problem
    assert not mask.is_complete
    assert mask.forced() == []


def test_a_vocabulary_without_the_bytes_is_a_problem_and_no_crash(engine):
    class Poor(Tokenizer):
        token_bytes = tuple(b"" if piece == b"}" else piece for piece in Tokenizer.token_bytes)

    mask = engine(PlainFormat(), Poor()).plan(request(constraint=Constraint("regex", "a}")), "")
    mask = mask.mask()
    mask.accept(TOKENIZER.encode("a"))
    row = array("i", bytes(4 * -(-len(TOKENIZER.token_bytes) // 32)))
    mask.fill(row)
    assert "token" in mask.problem
