"""Reasoning under a mask."""

from __future__ import annotations

import pytest
from mask_driver import (
    END,
    POINT,
    TOKENIZER,
    Format,
    allowed,
    may_say,
    request,
    said,
    say,
    schema_of,
    tool,
)


def test_a_constraint_begins_after_the_thought_that_the_prompt_opened(engine):
    thinking = engine(Format(("", "</think>")))
    mask = thinking.plan(request(constraint=schema_of(POINT)), "").mask()
    say(mask, "let me } see: <b> 12")
    assert END not in allowed(mask)
    say(mask, TOKENIZER.encode("</think>"))
    assert not may_say(mask, "h")
    say(mask, '{"x": 1, "side": "right"}')
    assert mask.is_complete


def test_a_model_that_may_think_may_also_answer_at_once(engine):
    thinking = engine(Format(("<think>", "</think>")))
    plan = thinking.plan(request(constraint=schema_of(POINT)), "")
    for text in ('<think>hm, {</think>{"x": 1, "side": "left"}', '{"x": 1, "side": "left"}'):
        mask = plan.mask()
        say(mask, text)
        assert mask.is_complete
    mask = plan.mask()
    assert not may_say(mask, "h")


def test_a_call_in_a_thought_is_only_thought_of(engine):
    thinking = engine(Format(("<think>", "</think>")))
    mask = thinking.plan(request(tools=(tool(),)), "").mask()
    say(mask, "<think>should I <tool_call>? no</think>Well. <tool_call>\n")
    assert may_say(mask, '{"')
    assert not may_say(mask, "h")


@pytest.mark.parametrize("limit", [0, 1, 5])
def test_a_thought_that_takes_too_long_is_closed(engine, limit):
    thinking = engine(Format(("", "</think>")))
    mask = thinking.plan(request(reasoning_tokens=limit), "").mask()
    say(mask, "so it goes on"[:limit])
    assert said(mask.forced()) == "</think>"
    say(mask, mask.forced())
    assert allowed(mask) == set(range(len(TOKENIZER.token_bytes)))
    assert not mask.is_complete


def test_a_thought_is_not_closed_inside_a_character(engine):
    thinking = engine(Format(("", "</think>")))
    mask = thinking.plan(request(reasoning_tokens=1, constraint=schema_of(POINT)), "").mask()
    first, second = TOKENIZER.encode("\N{LATIN SMALL LETTER E WITH ACUTE}")
    say(mask, [first])
    say(mask, [second])
    say(mask, "</think>")
    say(mask, '{"x": ')


def test_a_limit_does_not_make_a_model_think(engine):
    thinking = engine(Format(("<think>", "</think>")))
    mask = thinking.plan(request(reasoning_tokens=3), "").mask()
    say(mask, "no need to think for long")
    assert mask.forced() == []


def test_a_thought_that_the_model_opens_itself_has_its_limit_too(engine):
    thinking = engine(Format(("<think>", "</think>")))
    mask = thinking.plan(request(reasoning_tokens=2), "").mask()
    say(mask, "<think>ab")
    assert said(sorted(allowed(mask))) == "</think>"
    say(mask, "</think>Anything, <think> as well.")
    assert END in allowed(mask)


def test_white_space_before_a_thought_is_none_of_the_answer(engine):
    thinking = engine(Format(("<think>", "</think>")))
    mask = thinking.plan(request(constraint=schema_of(POINT)), "").mask()
    say(mask, '\n<think>hm</think>{"x": 1, "side": "left"}')
    assert mask.is_complete
