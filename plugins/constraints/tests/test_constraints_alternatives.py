"""The forms of an answer, as a table: what is asked, and the stages of each form."""

from __future__ import annotations

import pytest
from lmx_constraints.alternatives import (
    FREE,
    Alternative,
    AnswerSyntax,
    CallGrammar,
    Stage,
    plan,
)
from lmx_constraints.grammar import pattern_after_space
from mask_driver import request

from lmx_kernel.text.formats import CallSyntax
from lmx_kernel.types import ToolChoice


class Writer:
    """Writes readable names in place of grammars; a token is a character."""

    def tokens(self, text):
        return tuple(text)

    def until(self, closing, *, opening="", may_end):
        return f"{opening}...{closing}" + (" or the end" if may_end else "")

    def after(self, header, text):
        return header + text


def calls(*triggers, bare=None):
    return CallGrammar(CallSyntax(triggers=triggers, grammar="", bare=bare), "CALLS")


def thought(grammar, **fields):
    return Stage(grammar=grammar, is_reasoning=True, closing=tuple("</t>"), **fields)


def row(*stages):
    return Alternative(stages)


REQUIRED = {"tool_choice": ToolChoice(mode="required")}
LIMIT = {"reasoning_tokens": 5}
BARE = (r"\{", "{")
OPENED, MAYBE = ("", "</t>"), ("<t>", "</t>")
TEXT, CALL = Stage(grammar="TEXT"), Stage(grammar="CALLS")
UNTIL_A, UNTIL_B = Stage(grammar="...<a> or the end"), Stage(grammar="...<b> or the end")
CALL_A = Stage(grammar="CALLS", prefix=tuple("<a>"))
CALL_B = Stage(grammar="CALLS", prefix=tuple("<b>"))
BARE_START = Stage(grammar=pattern_after_space(BARE[0]))
BARE_CALL = Stage(grammar="CALLS", prefix=("{",))

PLANS = {
    "any text": ({}, {}, [FREE]),
    "text": ({}, {"text": "TEXT"}, [row(TEXT)]),
    "text behind a header": (
        {},
        {"text": "TEXT", "header": "to all: "},
        [row(Stage(grammar="to all: TEXT"))],
    ),
    "calls or text": ({}, {"text": "TEXT", "calls": calls("<a>")}, [row(CALL)]),
    "required calls": (REQUIRED, {"calls": calls("<a>")}, [row(CALL)]),
    "any text until a call": ({}, {"calls": calls("<a>")}, [row(UNTIL_A, CALL_A)]),
    "until one of several calls": (
        {},
        {"calls": calls("<a>", "<b>", bare=BARE)},
        [row(UNTIL_A, CALL_A), row(UNTIL_B, CALL_B), row(BARE_START, BARE_CALL)],
    ),
    "any text or a bare call": (
        {},
        {"calls": calls(bare=BARE)},
        [row(BARE_START, BARE_CALL), FREE],
    ),
    "free reasoning and free text": ({}, {"reasoning": OPENED}, [FREE]),
    "reasoning before text": (
        {},
        {"text": "TEXT", "reasoning": OPENED},
        [row(thought("...</t>"), TEXT)],
    ),
    "perhaps reasoning before text": (
        {},
        {"text": "TEXT", "reasoning": MAYBE},
        [row(thought("<t>...</t>"), TEXT), row(TEXT)],
    ),
    "reasoning before any text until a call": (
        {},
        {"calls": calls("<a>"), "reasoning": OPENED},
        [row(thought("...</t>"), UNTIL_A, CALL_A)],
    ),
    "perhaps reasoning before any text or a bare call": (
        {},
        {"calls": calls(bare=BARE), "reasoning": MAYBE},
        [
            row(thought("<t>...</t>"), BARE_START, BARE_CALL),
            row(thought("<t>...</t>")),
            row(BARE_START, BARE_CALL),
            FREE,
        ],
    ),
    "limited reasoning": (
        LIMIT,
        {"reasoning": OPENED},
        [row(thought("...</t> or the end", max_tokens=5))],
    ),
    "limited reasoning with an opening of its own": (
        LIMIT,
        {"reasoning": MAYBE},
        [row(thought("<t>...</t> or the end", max_tokens=8)), FREE],
    ),
    "limited reasoning before text": (
        LIMIT,
        {"text": "TEXT", "reasoning": OPENED},
        [row(thought("...</t>", max_tokens=5), TEXT)],
    ),
    "a limit without reasoning": (LIMIT, {}, [FREE]),
}


@pytest.mark.parametrize("name", PLANS)
def test_the_forms_of_an_answer(name):
    asked, syntax, expected = PLANS[name]
    assert plan(request(**asked), AnswerSyntax(**syntax), Writer()) == expected
