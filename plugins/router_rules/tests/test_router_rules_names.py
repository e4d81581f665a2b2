"""Names: aliases, globs, auto, and models that are asked for by name."""

from __future__ import annotations

ALIASES = """
[router_rules.aliases]
code = ["big-coder", "small"]
"gpt-*" = ["code"]
"""


def test_an_alias_stands_for_its_chain(desk, ask):
    found = desk(ALIASES, "pub/big-coder", "small").decide(ask(model="code"))
    assert found.models == ("pub/big-coder", "small")
    assert found.rule == "alias code"


def test_names_are_taken_in_any_case(desk, ask):
    assert desk(ALIASES, "Small").models_for(ask(model="CODE")) == ("Small",)


def test_an_alias_with_a_glob_may_lead_to_another_alias(desk, ask):
    assert desk(ALIASES, "small").models_for(ask(model="gpt-4o-mini")) == ("small",)


def test_what_is_not_installed_is_told(desk, ask):
    found = desk(ALIASES, "small").decide(ask(model="code"))
    assert [(one.model, one.reason) for one in found.skipped] == [("big-coder", "not installed")]


def test_a_chain_of_which_nothing_is_there_says_so(desk, ask):
    found = desk(ALIASES, "other").decide(ask(model="code"))
    assert found.models == ()
    assert {one.model for one in found.skipped} == {"big-coder", "small"}


def test_an_unknown_name_is_left_to_others(desk, ask):
    assert desk(ALIASES, "small").decide(ask(model="else")) is None


def test_the_name_of_a_model_is_never_swapped_by_a_glob(desk, ask):
    desk = desk(ALIASES, "gpt-oss", "small")
    assert desk.decide(ask(model="gpt-oss")) is None


def test_a_rule_may_say_that_it_swaps(desk, ask):
    text = '[[router_rules.rules]]\nname = "s"\nasked = ["gpt-*"]\nmodels = ["small"]\nswap = true'
    assert desk(text, "gpt-oss", "small").models_for(ask(model="gpt-oss")) == ("small",)


def test_an_alias_that_is_written_out_holds_for_a_model_of_that_name(desk, ask):
    assert desk(ALIASES, "pub/code", "small").models_for(ask(model="code")) == ("small",)


def test_an_alias_in_a_chain_is_taken_in_any_case(desk, ask):
    text = '[router_rules.aliases]\nCode = ["small"]\nx = ["cODE"]'
    assert desk(text, "small").models_for(ask(model="x")) == ("small",)


def test_auto_without_rules_takes_the_largest_that_is_loaded(desk, ask, card):
    desk = desk(
        "", card("large", 9), card("mid", 5), card("small", 1), card("bad", 99, problem="x")
    )
    assert desk.models_for(ask()) == ("large", "mid", "small")
    desk.does("small", is_loaded=True)
    desk.does("mid", is_loaded=True)
    assert desk.models_for(ask()) == ("mid", "small", "large")


def test_auto_may_have_other_names(desk, ask):
    desk = desk('[router_rules]\nauto = ["best", "lmx/*"]', "m")
    assert desk.models_for(ask(model="lmx/any")) == ("m",)
    assert desk.decide(ask(model="auto")) is None


def test_a_name_that_two_models_share_is_nobody(desk, ask):
    text = '[router_rules.aliases]\na = ["same"]'
    assert desk(text, "x/same", "y/same").models_for(ask(model="a")) == ()


def test_a_strict_client_gets_the_model_that_it_names_or_the_first_of_a_chain(desk, ask):
    strict = {"x-lmx-strict": "true"}
    text = ALIASES + '[[router_rules.rules]]\nname = "s"\nasked = ["small"]\nmodels = ["big-coder"]'
    desk = desk(text, "big-coder", "small")
    assert desk.models_for(ask(model="small")) == ("big-coder",)
    named = desk.decide(ask(model="small"), headers=strict)
    assert (named.models, named.strict) == (("small",), True)
    assert desk.decide(ask(model="code"), headers=strict).strict


STRICT = {"x-lmx-strict": "true"}


def test_a_strict_client_gets_no_other_than_the_first_of_a_chain(desk, ask):
    found = desk(ALIASES, "small").decide(ask(model="code"), headers=STRICT)
    assert (found.models, found.strict) == (("big-coder",), True)


def test_the_first_of_a_chain_is_what_its_alias_or_glob_begins_with(desk, ask, card):
    text = '[router_rules.aliases]\na = ["b", "z"]\nb = ["m*", "z"]'
    models = card("m-vectors", 9, "embedding"), card("m-words", 5), card("z", 7)
    assert desk(text, *models).models_for(ask(model="a"), headers=STRICT) == ("m-words",)


def test_a_strict_rule_without_a_model_that_meets_it_is_passed_over(desk, ask):
    text = '[[router_rules.rules]]\nname = "s"\nmodels = ["a", "b"]\nloaded = true\nstrict = true'
    desk = desk(text, "a", "b")
    desk.does("b", is_loaded=True)
    assert desk.decide(ask()).rule == "default"
