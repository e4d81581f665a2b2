"""What a draft model holds for sequences, and when it is asked."""

from __future__ import annotations

import pytest
from attrs import define, field

from lmx_kernel.engine.draft_model import (
    FIRST_SHARE,
    MOST_PENDING,
    READ_ROWS,
    DraftModel,
    ModelDrafts,
)
from lmx_kernel.engine.drafter import Drafter
from lmx_kernel.engine.drafting import Drafting
from lmx_kernel.engine.numpy_sampler import Sampler
from lmx_kernel.engine.protocol import Sequence
from lmx_kernel.engine.running import RunningSequence, RunningSet
from lmx_kernel.engine.step_costs import StepCosts
from lmx_kernel.testing.fake_drafts import CountingRows
from lmx_kernel.types import EngineLimits, LoadOptions, Sampling

VOCABULARY = 1000
TEXT = list(range(100, 600))


@define
class Rows(CountingRows):
    """Counts, and remembers what it computed."""

    pieces: list = field(factory=list)
    fails: bool = False

    def compute(self, pieces):
        if self.fails:
            raise RuntimeError("out of order")
        self.pieces += pieces
        return CountingRows.compute(self, pieces)


def rows_of(slots: int = 2, cache: int = 1000) -> Rows:
    rows = Rows()
    options = LoadOptions(context_length=500, parallel=slots, cache_tokens=cache)
    CountingRows.__init__(rows, options, [b"x"] * VOCABULARY, 0)
    return rows


def drafts_of(model: DraftModel, space: str = "") -> ModelDrafts:
    return ModelDrafts(model, Sampling(temperature=0, seed=1), 10, space)


def read(drafts: ModelDrafts, tokens: list[int]) -> int:
    """Read all of ``tokens``; return in how many pieces."""
    count = 0
    while drafts.pending(tokens) > 1:
        drafts.model.read(drafts, tokens)
        count += 1
    return count


def test_only_what_is_new_is_read() -> None:
    rows = rows_of()
    drafts = drafts_of(DraftModel("m", rows, Sampler))
    tokens = TEXT[:150]
    assert read(drafts, tokens) == 3
    assert max(len(piece.tokens) for piece in rows.pieces) == READ_ROWS
    assert drafts.model.propose([(drafts, tokens, 3)]) == [TEXT[150:153]]
    rows.pieces.clear()
    went_on = [*tokens, TEXT[150], 7]  # the second draft was wrong
    assert drafts.pending(went_on) == 1
    assert drafts.model.propose([(drafts, went_on, 2)]) == [[8, 9]]
    assert [(piece.position, list(piece.tokens)) for piece in rows.pieces] == [
        (151, [7]),
        (152, [8]),
    ]


def test_what_is_kept_of_a_sequence_serves_the_next_one_of_its_space_only() -> None:
    model = DraftModel("m", rows_of(), Sampler)
    first = drafts_of(model, "a")
    read(first, TEXT[:150])
    first.close()
    other = drafts_of(model, "b")
    assert other.pending(TEXT[:200]) == 200
    second = drafts_of(model, "a")
    assert second.pending(TEXT[:200]) in (200, 51)
    other.close()
    second.close()
    alone = DraftModel("m", rows_of(slots=1), Sampler)
    first = drafts_of(alone, "a")
    read(first, TEXT[:150])
    first.close()
    assert drafts_of(alone, "b").pending(TEXT[:150]) == 150, "another space learns nothing"
    assert drafts_of(alone, "b").pending(TEXT[:150]) == 150, "no slot is free"


def test_the_prefix_of_the_same_space_is_found() -> None:
    model = DraftModel("m", rows_of(slots=3), Sampler)
    for start in (0, 20):
        drafts = drafts_of(model)
        read(drafts, TEXT[start : start + 100])
        drafts.close()
    assert drafts_of(model).pending(TEXT[:120]) == 120 - 99
    assert drafts_of(model).pending(TEXT[20:140]) == 120 - 99


def test_room_is_made_of_what_nobody_uses() -> None:
    model = DraftModel("m", rows_of(slots=2, cache=200), Sampler)
    first, second = drafts_of(model), drafts_of(model)
    read(first, TEXT[:100])
    first.close()
    assert second.pending(TEXT[200:350]) == 150
    read(second, TEXT[200:350])
    third = drafts_of(model)
    assert third.pending(TEXT[:100]) == 100, "what the first one held had to go"
    model.read(third, TEXT[:100])
    assert third.pending(TEXT[:100]) == 100, "there is no room beside the second"
    assert model.propose([(third, TEXT[:100], 2), (second, TEXT[200:350], 2)]) == [[], []]
    second.close()
    model.trim()
    assert drafts_of(model).pending(TEXT[200:350]) == 150


def test_tokens_that_it_does_not_have_are_not_computed() -> None:
    rows = rows_of()
    model = DraftModel("m", rows, Sampler)
    drafts = drafts_of(model)
    tokens = [1, 2, VOCABULARY + 5, 3]
    assert drafts.pending(tokens) == 4
    assert model.propose([(drafts, tokens, 4)]) == [[]]
    assert not rows.pieces


def test_one_that_fails_drafts_no_more(caplog: pytest.LogCaptureFixture) -> None:
    rows = rows_of()
    model = DraftModel("m", rows, Sampler)
    rows.fails = True
    drafts = drafts_of(model)
    drafts.pending(TEXT[:10])
    assert model.propose([(drafts, TEXT[:10], 4)]) == [[]]
    assert not model.can_read(TEXT[:10])
    assert "the draft model m failed" in caplog.text


def test_a_bad_model_is_left_alone_and_tried_again_much_later() -> None:
    model = DraftModel("m", rows_of(), Sampler)
    drafts = drafts_of(model)
    for _ in range(30):
        drafts.learn([7], [8])
    assert drafts.share < 0.01
    assert drafts_of(model).share == model.share < FIRST_SHARE * 0.6
    for _ in range(500):
        drafts.rest()
    assert drafts.share < 0.25
    for _ in range(5000):
        drafts.rest()
    assert drafts.share > 0.7


# --- beside other sources


class Says:
    """Proposes the same always."""

    def __init__(self, *tokens: int) -> None:
        self._tokens = list(tokens)

    def propose(self, tokens, k):
        return self._tokens[:k]


def test_the_better_source_is_asked() -> None:
    drafts = drafts_of(DraftModel("m", rows_of(), Sampler))
    drafter = Drafter(Says(7, 8), drafts)
    drafter.ask(TEXT[:9], VOCABULARY)
    assert drafter.is_model, "it is thought better at first"
    drafter.settle([500])
    for _ in range(20):
        drafter.ask(TEXT[:9], VOCABULARY)
        drafter.settle([7, 8])
    drafter.ask(TEXT[:9], VOCABULARY)
    assert not drafter.is_model, "the other one has learnt better, without being computed"
    assert drafter.proposal == [7, 8]


def plan(target: dict[int, float], draft: dict[int, float], prompt: int, steps: int = 1):
    """Plan steps of one sequence; return its drafts in the last one, and the rows of the model."""
    rows = rows_of()
    rows.steps_s = draft
    model = DraftModel("m", rows, Sampler)
    limits = EngineLimits(context_length=500, max_sequences=4, cache_tokens=2000)
    running: RunningSet[RunningSequence] = RunningSet(limits, VOCABULARY, lambda *_: None)
    tokens = TEXT[:prompt]
    request = Sequence(
        id=1,
        tokens=tokens,
        produced=0,
        sampling=Sampling(temperature=0, seed=1),
        draft_model=ModelDrafts(model, Sampling(temperature=0, seed=1), prompt),
    )
    one = RunningSequence(request=request, done=prompt)
    running.add(one)
    drafting = Drafting(StepCosts(target))
    for step in range(steps):
        running.begin_step()
        model.costs = StepCosts(dict(draft))
        drafting.plan([one], running)
        found = list(one.drafts)
        running.give_out(one, (TEXT[prompt + step],))
    return found, rows.pieces


def test_the_time_that_drafts_take_is_part_of_the_plan() -> None:
    flat = {1: 1.0, 64: 1.1}
    cheap, _ = plan(flat, {1: 0.01}, 10)
    assert cheap == TEXT[10:18]
    dear, _ = plan(flat, {1: 0.3}, 10)
    assert 0 < len(dear) < len(cheap)
    assert plan(flat, {1: 0.9}, 10) == ([], []), "it takes as long as the model itself"
    assert plan({1: 1.0, 2: 2.5, 64: 40.0}, {1: 0.01}, 10) == ([], []), "rows cost too much"


def test_costs_follow_those_of_the_other_model_and_dear_drafts_are_tried_again() -> None:
    model = DraftModel("m", rows_of(), Sampler)
    model.costs = StepCosts({1: 8.0, 64: 9.0})
    target = StepCosts({1: 10.0, 64: 11.0})  # both were measured while the machine was busy
    for _ in range(60):
        model.follow(target.of(1))
        target.observe(1, 1.0)
    assert 0.7 < model.costs.of(1) < 0.9
    for _ in range(700):
        model.relax()
    assert model.costs.of(1) < 0.45


def test_a_prompt_is_read_once_reading_it_is_what_drafts_would_have_saved() -> None:
    flat, draft = {1: 1.0, 64: 1.1}, {1: 0.05, 64: 1.0}
    assert plan(flat, draft, MOST_PENDING - 1)[0], "a short one is read with the first drafts"
    assert plan(flat, draft, 200, steps=2) == ([], [])
    drafts, pieces = plan(flat, draft, 200, steps=12)
    assert drafts
    assert sum(len(piece.tokens) for piece in pieces if not piece.is_drawn) >= 190
    assert plan(flat, {1: 0.9, 64: 1.0}, 200, steps=40) == ([], []), "it never pays"
