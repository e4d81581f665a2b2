"""Sequences with a mask, alone and beside others."""

from __future__ import annotations

import pytest

from lmx_kernel.testing.mask import ScriptedMask, choices
from lmx_kernel.types import Sampling

PROMPT = [1, 20, 30, 40, 50]
FREE: set[int] = set()
SAMPLINGS = [
    Sampling(temperature=0, seed=1),
    Sampling(temperature=1.0, seed=2),
    Sampling(temperature=1.5, seed=3, top_k=0, top_p=1.0, min_p=0.0),
    Sampling(temperature=0, seed=4, repetition_penalty=1.5, presence_penalty=2.0),
]


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_only_allowed_tokens_are_said(tiny_driver, sampling) -> None:
    steps = choices(1, 12)
    answer = tiny_driver.answer(PROMPT, 12, sampling=sampling, mask=ScriptedMask(*steps))
    assert all(token in step for token, step in zip(answer, steps, strict=True))


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_a_mask_that_allows_all_changes_nothing(tiny_driver, sampling) -> None:
    free = tiny_driver.answer(PROMPT, 12, sampling=sampling)
    masked = tiny_driver.answer(
        PROMPT, 12, sampling=sampling, mask=ScriptedMask(*[set(range(300))] * 12)
    )
    assert masked == free


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_forced_tokens_are_said_at_once_and_count_as_said(tiny_driver, sampling) -> None:
    mask = ScriptedMask(FREE, *({token} for token in range(60, 72)), *[FREE] * 20)
    tiny_driver.add(1, PROMPT, sampling=sampling, mask=mask)
    [answer] = tiny_driver.run(1, count=20)
    assert answer[1:13] == list(range(60, 72))
    assert any(len(output.tokens) == 13 for step in tiny_driver.steps for output in step.outputs)
    assert mask.said[:20] == answer
    again = tiny_driver.answer([*PROMPT, *answer[:13]], 7, sampling=sampling, produced=13)
    assert again == answer[13:]


def test_more_forced_tokens_than_a_step_takes(tiny_driver) -> None:
    forced = [3 + n % 200 for n in range(150)]
    for number in range(4):
        tiny_driver.add(
            number, [*PROMPT, 7 + number], mask=ScriptedMask(*({token} for token in forced))
        )
    for answer in tiny_driver.run(*range(4), count=150):
        assert answer == forced


def test_forced_tokens_end_with_the_context(open_tiny) -> None:
    driver = open_tiny(context=16, cache=64)
    driver.add(1, PROMPT, mask=ScriptedMask(*({token} for token in range(60, 120))))
    assert driver.run(1, count=12) == [list(range(60, 72))]


def test_every_token_has_its_log_probability_where_they_are_asked_for(tiny_driver) -> None:
    mask = ScriptedMask(FREE, *({token} for token in range(60, 66)), *choices(3, 5))
    tiny_driver.add(1, PROMPT, logprobs=2, mask=mask)
    tiny_driver.run(1, count=12)
    for step in tiny_driver.steps:
        for output in step.outputs:
            assert len(output.tokens) == len(output.logprobs) == 1
            [detail] = output.logprobs
            assert detail.chosen < 0
            assert detail.top[0][1] >= detail.chosen  # the model's own view, which no mask bends


def test_neighbours_of_a_masked_row_are_as_they_would_be(tiny_driver) -> None:
    prompts = {number: [*PROMPT, 100 + number] for number in range(3)}
    for number, prompt in prompts.items():
        tiny_driver.add(number, prompt, sampling=SAMPLINGS[number])
    expected = tiny_driver.run(0, 1, 2, count=16)
    masks = {1: ScriptedMask(*choices(5, 16))}
    for number, prompt in prompts.items():
        tiny_driver.add(number + 10, prompt, sampling=SAMPLINGS[number], mask=masks.get(number))
    answers = tiny_driver.run(10, 11, 12, count=16)
    assert [answers[0], answers[2]] == [expected[0], expected[2]]
    assert all(token in step for token, step in zip(answers[1], masks[1].steps, strict=True))
