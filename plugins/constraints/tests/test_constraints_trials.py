"""The processes that try grammars: their limits on every system, and who waits for whom."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from textwrap import dedent

import pytest
from lmx_constraints import checker as checkers
from lmx_constraints import trial
from lmx_constraints.checker import Budget, GrammarChecker
from lmx_constraints.engine import GrammarEngine
from lmx_constraints.grammar import json_grammar, lark
from lmx_constraints.trial_child import TOO_LARGE, TOO_SLOW, TrialChild
from mask_driver import POINT, TOKENIZER, Format, may_say, request, say, schema_of, tool

from lmx_kernel.errors import InvalidSchemaError
from lmx_kernel.types import Tool, ToolChoice

REQUIRED = ToolChoice(mode="required")
SOUND = json_grammar({"type": "object"})


def slow(number=0):
    """Return a grammar that takes more time than there is."""
    return lark("start: " + "|".join(f'"{(n + number) % 10}"' for n in range(60_000)))


def bomb(number):
    """Return a tool whose schema is short, and takes seconds."""
    count = {"type": "integer", "multipleOf": 9_999_991 + 2 * number}
    return Tool(name=f"bomb_{number}", parameters={"type": "object", "properties": {"n": count}})


@pytest.fixture
def checker():
    made = GrammarChecker(300, {})
    yield made
    made.close()


@pytest.fixture
def engine_alone():
    """An engine without remembered verdicts."""
    made = GrammarEngine(TOKENIZER, Format())
    yield made
    made.close()


@pytest.fixture
def trials(monkeypatch):
    """The grammars that a child process was asked about."""
    asked = []
    ask = TrialChild.verdict_on

    def note(child, grammar):
        asked.append(grammar)
        return ask(child, grammar)

    monkeypatch.setattr(TrialChild, "verdict_on", note)
    return asked


@pytest.fixture
def another_system(tmp_path, monkeypatch):
    """Child processes in which the system refuses limits of the address space, as macOS does."""
    (tmp_path / "sitecustomize.py").write_text(
        dedent("""
        import resource

        def refuse(kind, limits, usual=resource.setrlimit):
            if kind == resource.RLIMIT_AS:
                raise ValueError("current limit exceeds maximum limit")
            usual(kind, limits)

        resource.setrlimit = refuse
        """)
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))


def test_grammars_are_tried_where_the_address_space_cannot_be_limited(another_system, checker):
    assert checker.problem_with(SOUND) == ""
    assert "take" in checker.problem_with(slow())


def test_memory_has_a_bound_where_the_address_space_cannot_be_limited(
    another_system, checker, monkeypatch
):
    assert checker.problem_with(SOUND) == ""
    monkeypatch.setattr(trial, "DEADLINE_S", 60)  # so that it is not killed for its time
    monkeypatch.setattr(trial, "MEMORY_BYTES", 1 << 20)  # less than any process has
    assert checker.problem_with(slow()) == TOO_LARGE
    monkeypatch.undo()
    assert checker.problem_with(json_grammar(POINT)) == ""


def test_a_bad_verdict_is_remembered_for_a_while(checker, trials, monkeypatch):
    bad = json_grammar({"not": {}})
    clock = [1000.0]
    monkeypatch.setattr(checkers.time, "monotonic", lambda: clock[0])
    first = checker.problem_with(bad)
    assert checker.problem_with(bad) == first != ""
    assert trials == [bad]
    clock[0] += checkers.VERDICT_S + 1
    assert checker.problem_with(bad) == first
    assert trials == [bad, bad]


def test_a_slow_grammar_is_remembered_too(checker, monkeypatch):
    asked = []
    monkeypatch.setattr(TrialChild, "verdict_on", lambda _, one: asked.append(one) or TOO_SLOW)
    assert checker.problem_with(SOUND) == TOO_SLOW
    assert checker.problem_with(SOUND) == TOO_SLOW
    assert asked == [SOUND]


def test_the_oldest_verdict_is_forgotten_first(checker, trials, monkeypatch):
    monkeypatch.setattr(checkers, "MAX_VERDICTS", 2)
    one, two, three = (lark(f'start: "{n}"') for n in "abc")
    for grammar in (one, two, one, three, one, two):
        assert checker.problem_with(grammar) == ""
    assert trials == [one, two, three, two]


def test_a_spent_budget_pays_for_no_trial_but_what_is_known_stays_known(checker, trials):
    assert checker.problem_with(SOUND) == ""
    budget = Budget(left_s=0.0)
    assert checker.problem_with(SOUND, budget) == ""
    assert checker.problem_with(json_grammar(POINT), budget) == checkers.SPENT
    assert trials == [SOUND]
    assert checker.problem_with(json_grammar(POINT)) == ""  # the budget was to blame


def test_a_request_with_twenty_bombs_is_served_on_its_budget(engine_alone, trials):
    bombs = tuple(bomb(n) for n in range(20))
    asked = request(tools=(Tool(name="turn", parameters=POINT), *bombs), tool_choice=REQUIRED)
    plan = engine_alone.plan(asked, "")
    assert len(trials) < 12
    mask = plan.mask()
    say(mask, '<tool_call>\n{"name": "bomb_7", "arguments": {"free": [1]}}\n</tool_call>')
    say(mask, '<tool_call>\n{"name": "turn", "arguments": {"x": ')
    assert not may_say(mask, "n")


def test_a_strict_tool_beyond_the_budget_is_refused_by_name(engine_alone):
    bombs = tuple(bomb(n) for n in range(20))
    with pytest.raises(InvalidSchemaError, match=r"move.*together") as caught:
        engine_alone.plan(request(tools=(*bombs, tool(strict=True)), tool_choice=REQUIRED), "")
    assert caught.value.param == "tools"


def test_bombs_of_one_request_delay_no_plain_tool_of_another(engine_alone):
    bombs = request(tools=tuple(bomb(n) for n in range(20)), tool_choice=REQUIRED)
    with ThreadPoolExecutor(2) as threads:
        heavy = threads.submit(engine_alone.plan, bombs, "")
        plain = threads.submit(engine_alone.plan, request(tools=(tool(),)), "")
        constrained = threads.submit(
            engine_alone.plan, request(constraint=schema_of({"enum": ["a", "b"]})), ""
        )
        assert plain.result() is not None
        assert not heavy.done()
        assert heavy.result() is not None
        assert constrained.result() is not None


def test_a_schema_that_is_too_long_is_not_even_tried(engine_alone, trials):
    texts = {"enum": [f"{n} {'x' * 1000}" for n in range(300)]}
    long = {"type": "object", "properties": {"text": texts}}
    mask = engine_alone.plan(request(tools=(tool(long),), tool_choice=REQUIRED), "").mask()
    say(mask, '<tool_call>\n{"name": "move", "arguments": {"free": [1]}}')
    assert all(len(grammar) < 10_000 for grammar in trials)
    with pytest.raises(InvalidSchemaError, match=r"move.*longer"):
        engine_alone.plan(request(tools=(tool(long, strict=True),)), "")


def test_a_child_imports_nothing_from_the_current_folder(checker, tmp_path, monkeypatch):
    (tmp_path / "llguidance.py").write_text("raise SystemExit('not this file')")
    monkeypatch.chdir(tmp_path)
    assert checker.problem_with(SOUND) == ""
