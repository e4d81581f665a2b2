"""The graph of a step is built by another thread while the step before is computed."""

from __future__ import annotations

import threading
from itertools import pairwise

import pytest

from lmx_kernel.types import Sampling

PROMPTS = [[0, *range(2, 12)], [0, *range(30, 37)], [0, *range(50, 70)]]
SEEDED = Sampling(temperature=0.8, seed=7, frequency_penalty=0.5)


@pytest.fixture
def builders(driver, wrap_module) -> list[str]:
    """Which thread built each decoding step of the driver."""
    seen: list[str] = []

    def watched(module, tokens, cache):
        if tokens.shape[1] == 1:
            seen.append(threading.current_thread().name)
        return module(tokens, cache=cache)

    wrap_module(driver.engine, watched)
    return seen


def test_the_next_step_is_built_while_one_is_computed(driver, builders) -> None:
    driver.add(1, PROMPTS[0])
    driver.run(1, count=12)
    mine = threading.current_thread().name
    assert builders[0] == mine  # nothing was computed that could have been used
    assert len(builders) >= 11
    assert mine not in builders[1:]


def test_the_waiting_thread_computes_each_step_once(driver, wrap_module) -> None:
    """What is built in vain, since rows came or left, is not computed."""
    alone = [driver.answer(prompt, 12, sampling=SEEDED) for prompt in PROMPTS]
    driver.engine.trim()
    for number, prompt in enumerate(PROMPTS):
        driver.add(number, prompt, sampling=SEEDED)
        driver.step()
    cells = [driver.engine.stats().cache_tokens_used]
    for _ in range(3):
        driver.step()
        cells.append(driver.engine.stats().cache_tokens_used)
    assert [after - before for before, after in pairwise(cells)] == [3, 3, 3]
    assert driver.run(*range(3), count=12) == alone


def test_code_that_fails_in_the_other_thread_is_run_again(driver, wrap_module) -> None:
    """Such as code that wants the values of what is computed at the moment."""
    expected = driver.answer(PROMPTS[0], 12)
    mine = threading.current_thread()

    def shy(module, tokens, cache):
        if threading.current_thread() is not mine:
            raise RuntimeError("There is no Stream(cpu, 0) in current thread")
        return module(tokens, cache=cache)

    wrap_module(driver.engine, shy)
    assert driver.answer(PROMPTS[0], 12) == expected
