"""Which of a rule's models comes first."""

from __future__ import annotations

import pytest

CHAIN = '[[router_rules.rules]]\nname = "r"\nmodels = ["a", "b", "c"]\n'
BALANCE = f"{CHAIN}balance = true\n"


def test_a_chain_is_kept_in_its_order(desk, ask):
    desk = desk(CHAIN, "a", "b", "c")
    desk.does("c", is_loaded=True)
    assert desk.models_for(ask()) == ("a", "b", "c")


def test_loaded_models_come_first_if_the_rule_says_so(desk, ask):
    desk = desk(f"{CHAIN}prefer_loaded = true", "a", "b", "c")
    desk.does("c", is_loaded=True)
    assert desk.models_for(ask()) == ("c", "a", "b")


@pytest.mark.parametrize(
    ("condition", "state", "reason"),
    [
        ("loaded = true", {}, "not loaded"),
        ("loaded = false", {"is_loaded": True}, "loaded"),
        ("max_waiting = 2", {"waiting": 3}, "3 requests wait for it"),
        ("max_wait_s = 2", {"wait_s": 7.5}, "it could begin in 7.5 s"),
        ("min_tokens_per_s = 20", {"tokens_per_s": 9.5}, "makes 9.5 tokens a second"),
    ],
)
def test_models_that_do_not_meet_the_rule_are_passed_over(desk, ask, condition, state, reason):
    desk = desk(f"{CHAIN}{condition}", "a", "b")
    fine = {"is_loaded": condition != "loaded = false", "tokens_per_s": 30}
    desk.does("a", **state)
    desk.does("b", **fine)
    found = desk.decide(ask())
    assert found.models == ("b",)
    assert {one.model: one.reason for one in found.skipped} == {"a": reason, "c": "not installed"}


def test_a_rule_of_which_no_model_fits_is_passed_over_and_that_is_told(desk, ask):
    text = f'{CHAIN}loaded = true\n[router_rules]\ndefault = ["d"]'
    found = desk(text, "a", "d").decide(ask())
    assert (found.rule, found.models) == ("default", ("d",))
    assert ("a", "not loaded") in [(one.model, one.reason) for one in found.skipped]


def test_a_model_that_one_rule_passes_over_and_another_takes_was_not_skipped(desk, ask):
    found = desk(f"{CHAIN}loaded = true", "a").decide(ask())
    assert found.models == ("a",)
    assert "a" not in [one.model for one in found.skipped]


def test_a_model_that_has_not_answered_yet_may_be_tried(desk, ask):
    assert desk(f"{CHAIN}min_tokens_per_s = 20", "a").models_for(ask()) == ("a",)


def test_among_equals_the_one_with_the_shortest_queue_comes_first(desk, ask):
    desk = desk(f"{BALANCE}sticky = false", "a", "b", "c")
    desk.does("a", is_loaded=True, waiting=2)
    desk.does("b", is_loaded=True, running=3)
    desk.does("c", is_loaded=True, running=1)
    assert desk.models_for(ask()) == ("c", "b", "a")


def test_a_conversation_stays_where_it_began(desk, ask, conversation):
    desk = desk(BALANCE, "a", "b", "c")
    for n in range(20):
        turns = [f"question {n}", "an answer", "a second question"]
        assert desk.models_for(conversation(*turns)) == desk.models_for(conversation(turns[0]))


def test_conversations_are_spread_over_equals(desk, conversation):
    desk = desk(BALANCE, "a", "b", "c")
    firsts = [desk.models_for(conversation(f"question {n}"))[0] for n in range(300)]
    assert all(firsts.count(model) > 60 for model in "abc")


def test_a_conversation_moves_if_others_wait_where_it_began(desk, conversation):
    desk = desk(BALANCE, "a", "b")
    home, other = desk.models_for(conversation("hello"))
    desk.does(home, is_loaded=True, waiting=1)
    desk.does(other, is_loaded=True)
    assert desk.models_for(conversation("hello", "hi", "more")) == (other, home)


def test_two_runs_decide_alike(desk, load):
    text = (
        '[[router_rules.rules]]\nname = "r"\ntask = ["code"]\nmodels = ["a", "b"]\nbalance = true'
    )
    first, second = desk(text, "a", "b", "c"), desk(text, "a", "b", "c")
    requests = [request for _, request in load("known")]
    assert [first.decide(one) for one in requests] == [second.decide(one) for one in requests]
