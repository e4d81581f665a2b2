"""What rules ask of a request."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from attrs import evolve

from lmx_kernel.types import ChatPrompt, Constraint, EmbeddingPrompt, TextPrompt, Tool

RULE = '[[router_rules.rules]]\nname = "r"\nmodels = ["yes"]\n'
DEFAULT = '[router_rules]\ndefault = ["no"]\n'


@pytest.fixture
def holds(desk):
    """Return a function that says whether a rule with ``condition`` is for a request."""

    def ask_rule(condition, request, **around):
        return (
            desk(f"{DEFAULT}{RULE}{condition}", "yes", "no").decide(request, **around).rule == "r"
        )

    return ask_rule


def with_tools(request):
    return evolve(request, prompt=ChatPrompt(request.prompt.messages, (Tool(name="t"),)))


def test_the_task(holds, ask):
    assert holds('task = ["code", "tools"]', ask("Fix this Python bug"))
    assert not holds('task = ["code"]', ask("Tell me a joke"))


def test_the_length_of_the_prompt(holds, ask):
    limits = "min_prompt_tokens = 10\nmax_prompt_tokens = 20"
    assert [holds(limits, ask("x" * 4 * tokens)) for tokens in (9, 10, 20, 21)] == [
        False,
        True,
        True,
        False,
    ]


def test_the_length_of_a_long_prompt_in_any_script(holds, ask):
    limits = "min_prompt_tokens = 49_900\nmax_prompt_tokens = 50_100"
    assert holds(limits, ask("x汉" * 50_000))


def test_what_it_carries(holds, ask):
    assert holds("tools = true", with_tools(ask()))
    assert not holds("tools = true", ask())
    assert holds("tools = false", ask())
    assert holds("structured = true", ask(constraint=Constraint("json_object")))
    assert not holds("structured = true", ask())
    assert holds("images = false", ask())


def test_a_system_text(holds, ask, system):
    assert holds("system = true", system("Be brief."))
    assert not holds("system = true", ask())


def test_who_asks(holds, ask):
    assert holds('keys = ["bot-*"]', ask(), key="bot-7")
    assert not holds('keys = ["bot-*"]', ask(), key="")
    assert holds('clients = ["10.0.*"]', ask(), client="10.0.0.9")
    assert holds('clients = ["openai*"]', ask(), headers={"user-agent": "OpenAI/Python 3"})
    assert not holds('clients = ["10.0.*"]', ask())


def test_headers(holds, ask):
    rule = 'headers = {X-Team = "red*"}'
    assert holds(rule, ask(), headers={"x-team": "Red-2"})
    assert not holds(rule, ask(), headers={"x-team": "blue"})
    assert not holds(rule, ask())


@pytest.mark.parametrize(
    ("clock", "expected"), [("21:59", False), ("22:00", True), ("03:00", True), ("06:00", False)]
)
def test_hours_may_go_past_midnight(holds, ask, clock, expected):
    now = datetime.fromisoformat(f"2026-11-24T{clock}").replace(tzinfo=UTC)
    assert holds('hours = ["22:00-06:00"]', ask(), now=now) is expected


def test_weekdays(holds, ask):
    saturday = datetime(2026, 11, 28, tzinfo=UTC)
    assert holds('days = ["sat", "sun"]', ask(), now=saturday)
    assert not holds('days = ["sat", "sun"]', ask())


@pytest.mark.parametrize(
    ("moment", "expected"),
    [
        ("2026-11-27T02:00", False),  # the night that began on Thursday
        ("2026-11-27T23:00", True),
        ("2026-11-28T02:00", True),
        ("2026-11-28T23:00", False),
    ],
)
def test_a_night_belongs_to_the_day_on_which_it_began(holds, ask, moment, expected):
    now = datetime.fromisoformat(moment).replace(tzinfo=UTC)
    rule = 'days = ["fri"]\nhours = ["22:00-06:00"]'
    assert holds(rule, ask(), now=now) is expected


def test_memory_pressure(holds, ask):
    assert holds('pressure = ["soft", "hard"]', ask(), pressure="soft")
    assert not holds('pressure = ["soft", "hard"]', ask())


def test_all_conditions_of_a_rule_must_be_true(holds, ask):
    both = 'task = ["code"]\nkeys = ["bot"]'
    assert holds(both, ask("Fix this Python bug"), key="bot")
    assert not holds(both, ask("Fix this Python bug"))


def test_the_first_rule_that_holds_decides(desk, ask):
    text = f"{RULE}{RULE.replace('yes', 'no')}".replace('"r"', '"first"', 1)
    assert desk(text, "yes", "no").decide(ask()).rule == "first"


def test_requests_from_within_have_no_caller(desk, ask):
    desk = desk(f'{DEFAULT}{RULE}keys = ["*"]\nclients = ["?*"]', "yes", "no")
    assert desk.decide(ask(), client="").rule == "default"


def test_embeddings_go_to_models_that_make_them_and_nothing_else_does(desk, ask, card):
    desk = desk("", card("words", 9), card("vectors", 1, "embedding"))
    assert desk.models_for(ask()) == ("words",)
    embed = ask(prompt=EmbeddingPrompt((TextPrompt("x"),)))
    assert desk.models_for(embed) == ("vectors",)
