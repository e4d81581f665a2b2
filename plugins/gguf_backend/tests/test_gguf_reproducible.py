"""A model that is loaded to be reproducible: an answer depends on the request and its seed alone,
bit for bit.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lmx_kernel.engine.drafts import CopySource
from lmx_kernel.engine.step_costs import StepCosts
from lmx_kernel.testing.bitwise import COUNT, SAMPLED, answer, trace
from lmx_kernel.testing.driver import Driver
from lmx_kernel.testing.harness import running_kernel
from lmx_kernel.testing.reproducible import differences

FULL = [pytest.mark.full, pytest.mark.timeout(3600)]
PLUGINS = ("lmx_gguf_backend.backend", "lmx_model_folders.plugin")
CONFIG = """
[model_folders]
home = false
hugging_face = false
lm_studio = false
paths = ["{paths}"]
[[model]]
match = "*"
reproducible = true
parallel = 8
"""
PROMPT = [3 + (place * 37) % 250 for place in range(540)]
"""Longer than 512 tokens: a lone row has a path of its own there."""

Q8_0 = 8


def quantised(data: bytes) -> bytes:
    """Return float32 weights as blocks of Q8_0."""
    blocks = np.frombuffer(data, np.float32).reshape(-1, 32)
    scales = (np.abs(blocks).max(1) / 127).astype(np.float16)
    numbers = np.round(blocks / scales[:, None].astype(np.float32)).astype(np.int8)
    pairs = zip(scales, numbers, strict=True)
    return b"".join(scale.tobytes() + row.tobytes() for scale, row in pairs)


@pytest.fixture(params=["float32", "q8_0"])
def weights(request: pytest.FixtureRequest, tiny: Any, tmp_path: Path) -> Path:
    """A tiny model whose weights are of one type."""
    tiny.metadata["llama.context_length"] = (4, 1024)
    if request.param == "q8_0":
        for name, (shape, _, data) in tiny.tensors.items():
            if len(shape) > 1:
                tiny.tensors[name] = (shape, Q8_0, quantised(data))
    return tiny.write(tmp_path / "tiny.gguf")


@pytest.fixture
def open_reproducible(open_tiny: Callable[..., Driver]) -> Callable[..., Driver]:
    """Opens engines that are reproducible."""

    def opener(path: Path, parallel: int = 6) -> Driver:
        return open_tiny(700, parallel, parallel * 700, path, reproducible=True, threads=2)

    return opener


def test_an_answer_is_the_same_alone_among_others_and_cached(
    weights: Path, open_reproducible: Callable[..., Driver]
) -> None:
    driver = open_reproducible(weights)
    assert driver.engine.numerics.is_reproducible
    alone = answer(driver, 1, PROMPT)

    driver.engine.trim()
    for other in range(3):
        driver.add(10 + other, PROMPT[other + 1 : 100 * other + 40], sampling=SAMPLED)
    for _ in range(4):
        driver.step()
    assert answer(driver, 2, PROMPT) == alone
    assert driver.cached(2) == 0

    assert answer(driver, 3, PROMPT) == alone
    assert driver.cached(3) > 500  # from a state

    driver.engine.trim()
    driver.add(4, PROMPT, sampling=SAMPLED, logprobs=3)
    while not driver.tokens[4]:
        driver.step()
    assert answer(driver, 5, PROMPT) == alone
    assert driver.cached(5) > 500  # from the one that runs
    driver.run(4, count=COUNT)
    assert trace(driver, 4) == alone


@pytest.mark.parametrize("count", [3, pytest.param(300, marks=FULL)])
def test_drafts_change_no_bit(
    count: int, weights: Path, open_reproducible: Callable[..., Driver]
) -> None:
    driver = open_reproducible(weights)
    driver.engine._drafting.costs = StepCosts({1: 1.0, 64: 1.0})  # they pay
    assert driver.engine.exact_drafts
    for number in range(count):
        prompt = PROMPT[number : number + 30 + number * 7 % 400]
        alone = answer(driver, 2 * number, prompt)
        guesses = CopySource([*prompt, *alone[0], *prompt[-4:]])
        assert answer(driver, 2 * number + 1, prompt, drafts=guesses) == alone
    outputs = [one for step in driver.steps for one in step.outputs]
    assert sum(one.accepted for one in outputs) > 3 * count


def test_an_answer_goes_on_in_another_process_as_it_would_have(
    weights: Path, open_reproducible: Callable[..., Driver]
) -> None:
    tokens, details = answer(open_reproducible(weights), 1, PROMPT)
    other = open_reproducible(weights, parallel=2)
    said = tokens[:5]
    rest = answer(other, 1, [*PROMPT, *said], produced=5)
    assert rest == (tokens[5:], details[4 * 5 :])


def test_the_promise_is_tried_out(tiny_path: Path, open_reproducible: Callable[..., Driver],
                                  monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    from lmx_gguf_backend import streams

    monkeypatch.setattr(streams, "_is_uniform", lambda context: False)
    numerics = open_reproducible(tiny_path).engine.numerics
    assert not numerics.is_reproducible
    assert "alone" in numerics.problem


def test_a_lone_row_of_plain_weights_gets_a_second_one(
    tiny_path: Path, open_reproducible: Callable[..., Driver]
) -> None:
    context = open_reproducible(tiny_path).engine._context
    assert context.least_rows == 2


@pytest.mark.parametrize("count", [9, pytest.param(300, marks=FULL)])
async def test_answers_are_the_same_whatever_happens_around_them(
    count: int, weights: Path, tmp_path: Path
) -> None:
    (tmp_path / "models" / "model").mkdir(parents=True)
    shutil.copy(weights, tmp_path / "models" / "model" / "x.gguf")
    config = CONFIG.format(paths=tmp_path / "models")
    async with running_kernel(tmp_path, {}, config, PLUGINS) as stage:
        found = await differences(stage, count, "model")
    assert found.different == []
    assert found.cached_tokens > 20 * count
    assert found.crashes == 1
