"""Where drafts come from, and how many pay."""

from __future__ import annotations

import random

from lmx_kernel.engine.drafter import Drafter
from lmx_kernel.engine.drafting import Drafting, best_plan
from lmx_kernel.engine.drafts import MOST_INDEXED, CopySource
from lmx_kernel.engine.step_costs import StepCosts


def follow(source: CopySource, prompt: list[int], answer: list[int]) -> float:
    """Return the share of an answer's tokens that the source knew."""
    known = 0
    for place in range(1, len(answer)):
        proposal = source.propose(prompt + answer[:place], 4)
        known += proposal[:1] == answer[place : place + 1]
    return known / len(answer)


def text(seed: int, count: int) -> list[int]:
    dice = random.Random(seed)
    return [dice.randrange(5000) for _ in range(count)]


# --- copies


def test_what_stands_in_the_prompt_is_copied() -> None:
    file = text(1, 400)
    prompt = [*text(2, 50), *file, *text(3, 50)]
    source = CopySource(prompt)
    assert source.propose([*prompt, *file[:8]], 5) == file[8:13]
    assert follow(CopySource(prompt), prompt, file) > 0.95


def test_a_changed_name_costs_a_few_tokens() -> None:
    file = text(1, 400)
    prompt = [*file, 7, 8, 9]
    answer = [6001 if place % 40 == 17 else token for place, token in enumerate(file)]
    assert follow(CopySource(prompt), prompt, answer) > 0.85


def test_the_latest_place_counts_and_the_longer_match() -> None:
    run = [11, 12, 13]
    prompt = [*run, 1, *text(1, 20), *run, 2, *text(2, 20)]
    assert CopySource(prompt).propose([*prompt, *run], 1) == [2]
    longer = [5, 6, 7, 8, 9, *run]
    prompt = [*longer, 1, *text(1, 20), *run, 2, *text(2, 20)]
    assert CopySource(prompt).propose([*prompt, *longer], 1) == [1]


def test_an_answer_that_repeats_itself_is_copied_too() -> None:
    prompt, loop = text(1, 20), text(2, 30)
    assert follow(CopySource(prompt), prompt, loop * 4) > 0.65


def test_a_prediction_is_proposed_from_the_first_token_on() -> None:
    prompt, expected = text(1, 20), text(2, 30)
    source = CopySource(prompt, expected)
    assert source.propose([*prompt, expected[0]], 3) == expected[1:4]
    assert CopySource(prompt, expected).propose([*prompt, 1], 3) == []
    assert follow(CopySource(prompt, expected), prompt, [*text(3, 5), *expected]) > 0.7


def test_text_that_is_new_has_no_drafts() -> None:
    prompt = text(1, 50)
    assert follow(CopySource(prompt), prompt, [place + 6000 for place in range(100)]) == 0
    assert CopySource([]).propose([1], 5) == []
    assert CopySource([1, 2]).propose([1, 2, 3], 0) == []


def test_an_index_is_bounded_and_a_long_prompt_is_read_piece_by_piece() -> None:
    prompt = [place % 70_000 for place in range(120_000)]
    source = CopySource(prompt)
    tokens = [*prompt, 49_000, 49_001, 49_002]
    assert source.propose(tokens, 2) == [], "not all is read in the first step"
    for _ in range(30):
        source.propose(tokens, 2)
    assert source.propose([*tokens, 49_003], 2) == [49_004, 49_005]
    assert all(len(places) <= MOST_INDEXED for places in source._places.values())


# --- how many


def counts(shares: list[float], shape: dict[int, float], **more) -> list[int]:
    drafting = Drafting(StepCosts(shape), **{"most_rows": 64} | more)
    return best_plan(shares, [15] * len(shares), drafting).counts


def test_rows_that_are_cheap_are_used_and_dear_ones_are_not() -> None:
    assert counts([0.95], {1: 1.0, 16: 1.2}) > [8]
    assert counts([0.95], {1: 1.0, 16: 16.0}) == [0]
    assert counts([0.3], {1: 1.0, 16: 8.0}) == [0]
    middle = counts([0.9], {1: 1.0, 4: 1.5, 5: 5.0, 16: 16.0})
    assert middle == [3], "a row that costs a jump is not taken"


def test_sequences_that_copy_get_the_rows() -> None:
    found = counts([0.95, 0.2, 0.2], {1: 1.0, 8: 1.2, 64: 30.0})
    assert found[0] > 2
    assert found[1:] == [0, 0]
    padded = counts([0.95, 0.9], {1: 1.0, 64: 2.0}, is_padded=True)
    assert min(padded) > 3


def test_drafts_do_not_slow_down_who_has_none() -> None:
    """A batch is padded here: the rows of one are rows of all."""
    dear, cheap = {1: 1.0, 3: 1.1, 27: 3.0}, {1: 1.0, 3: 1.1, 27: 1.2}
    assert counts([0.98, 0.98, 0.0], dear, is_padded=True) == [0, 0, 0]
    assert min(counts([0.98, 0.98, 0.98], dear, is_padded=True)) > 3, "all gain"
    assert min(counts([0.98, 0.98, 0.0], cheap, is_padded=True)[:2]) > 3


def test_who_was_quicker_waits_for_the_drafts_of_others() -> None:
    """So streams that copy, but find nothing to copy now and then, do not stop each other."""
    drafting = Drafting(StepCosts({2: 1.0, 3: 1.5, 20: 2.0}), is_padded=True)
    leads, plans = [0.0, 0.0], []
    for step in range(60):
        most = [9, 9] if 0 < step < 20 and step % 4 else [9, 0]
        plans.append(best_plan([0.95, 0.95], most, drafting, leads=leads))
        leads = plans[-1].leads(leads)
    assert not any(plans[0].counts), "nobody is ahead yet"
    assert all(any(plan.counts) for plan in plans[1:20])
    times = [plan.took_s for plan in plans[20:]]
    assert 40 * 1.1 < sum(times) < 40 * 1.1 + 20, "who has nothing any more goes on at 0.9 x"


def test_rows_end_where_the_engine_says() -> None:
    assert sum(counts([0.98] * 3, {1: 1.0, 64: 1.0}, most_rows=9)) == 6
    assert counts([0.98] * 2, {1: 1.0, 64: 1.0}, most_rows=9, is_padded=True) == [3, 3]
    drafting = Drafting(StepCosts({1: 1.0, 64: 1.0}))
    assert best_plan([0.98, 0.98], [1, 2], drafting).counts == [1, 2]
    assert sum(best_plan([0.98, 0.98], [9, 9], drafting, spare_cells=3).counts) == 3


def test_a_source_becomes_trusted_without_being_computed() -> None:
    class Always:
        def propose(self, tokens, k):
            return [tokens[-1] + 1]

    drafter = Drafter(Always())
    for place in range(20):
        drafter.ask([place], 5000)
        assert drafter.settle([place + 1]) == (0, 0, "")
    assert drafter.share > 0.95
    for place in range(20):
        drafter.ask([place], 5000)
        drafter.drafts = drafter.proposal[:1]
        assert drafter.settle([4999]) == (1, 0, "")
    assert drafter.share < 0.05


# --- costs


def test_costs_follow_what_is_measured_and_busy_times_change_all() -> None:
    costs = StepCosts({1: 1.0, 8: 2.0})
    assert costs.of(1) == 1.0
    assert 1.0 < costs.of(4) < 2.0
    assert costs.of(16) == 4.0
    for _ in range(40):
        costs.observe(1, 3.0)
    assert 2.9 < costs.of(1) < 3.1
    assert costs.of(8) > 4.0, "though it was not measured again"
    for _ in range(40):
        costs.observe(8, 30.0)
        costs.observe(1, 3.0)
    assert costs.of(8) / costs.of(1) > 7


def test_rows_that_seemed_dear_are_tried_again() -> None:
    costs = StepCosts({1: 1.0, 8: 100.0})
    before = costs.of(8)
    for _ in range(500):
        costs.relax(1)
    assert costs.of(1) <= costs.of(8) < before / 10
