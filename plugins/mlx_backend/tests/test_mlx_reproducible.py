"""A model that is loaded to be reproducible: an answer depends on the request and its seed alone,
bit for bit.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from lmx_mlx_backend.backend import MlxBackend

from lmx_kernel.engine.drafts import CopySource
from lmx_kernel.testing.bitwise import COUNT, SAMPLED, answer, trace
from lmx_kernel.testing.driver import Driver
from lmx_kernel.testing.harness import running_kernel
from lmx_kernel.testing.reproducible import differences

FULL = [pytest.mark.full, pytest.mark.timeout(3600)]
PLUGINS = ("lmx_mlx_backend.backend", "lmx_model_folders.plugin")
CONFIG = """
[mlx]
device = "cpu"
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
BESIDE_LONG = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from conftest import open_driver
from test_mlx_reproducible import SAMPLED, answer

driver = open_driver(Path(sys.argv[2]), 2048, 4, 8192, reproducible=True)
print(driver.engine.numerics.problem)
prompts = [[3 + (place * 37) % 250 for place in range(length)] for length in (30, 290)]
alone = [answer(driver, number, prompt) for number, prompt in enumerate(prompts)]
for length in (400, 1500):
    driver.engine.trim()
    neighbour = 10 * length
    driver.add(neighbour, [7 + place % 90 for place in range(length)], sampling=SAMPLED)
    while not driver.tokens[neighbour]:
        driver.step()
    beside = [answer(driver, neighbour + 1 + n, prompt) for n, prompt in enumerate(prompts)]
    print(length, [one == other for one, other in zip(alone, beside)])
    driver.engine.remove(neighbour)
"""
LOOK_BEYOND = """
import ctypes, os, sys
import mlx.core as mx
from lmx_mlx_backend.uniformity import attends_uniformly

mx.set_default_device(mx.cpu)
library = ctypes.CDLL(os.environ["LD_PRELOAD"].split(":")[0])
for threads in (1, 2, 3):
    library.scipy_openblas_set_num_threads(threads)
    print([attends_uniformly(width, width, most) for width, most in ((16, 2048), (128, 8192))])
"""
PROMPT = [3 + (place * 37) % 250 for place in range(300)]


@pytest.fixture
def driver(open_model: Callable[..., Driver]) -> Driver:
    """A reproducible engine."""
    return open_model(reproducible=True)


def test_an_answer_is_the_same_alone_among_others_cached_and_drafted(driver: Driver) -> None:
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
    assert driver.cached(3) == 256

    driver.engine.trim()
    driver.add(4, PROMPT, sampling=SAMPLED, logprobs=3)
    while not driver.tokens[4]:
        driver.step()
    assert answer(driver, 5, PROMPT) == alone
    assert driver.cached(5) == 256  # from the one that runs
    driver.run(4, count=COUNT)
    assert trace(driver, 4) == alone

    assert answer(driver, 6, PROMPT, drafts=CopySource([*PROMPT, *alone[0]])) == alone


def test_an_answer_goes_on_as_it_would_have(driver: Driver, open_model: Any) -> None:
    tokens, details = answer(driver, 1, PROMPT)
    said, rest = tokens[:5], (tokens[5:], details[4 * 5 :])
    assert answer(driver, 2, [*PROMPT, *said], produced=5) == rest
    assert driver.cached(2) == len(PROMPT) + 4  # of the same answer
    other = open_model(reproducible=True)
    assert answer(other, 1, [*PROMPT, *said], produced=5) == rest


def test_a_prompt_that_holds_an_earlier_answer_is_as_if_nobody_had_computed_that(
    driver: Driver, open_model: Any
) -> None:
    first = answer(driver, 1, PROMPT[:200])
    longer = [*PROMPT[:200], *first[0], *PROMPT[:90]]
    second = answer(driver, 2, longer)
    assert driver.cached(2) == 192
    assert answer(open_model(reproducible=True), 1, longer) == second


def test_models_without_a_cell_for_each_token_promise_nothing(open_model: Any) -> None:
    numerics = open_model("mamba", reproducible=True).engine.numerics
    assert not numerics.is_reproducible
    assert "layer" in numerics.problem


@pytest.mark.linux("with OpenBLAS")
def test_a_short_answer_is_the_same_beside_long_ones(models: Callable[[str], Path]) -> None:
    found = with_openblas(BESIDE_LONG, str(Path(__file__).parent), str(models("llama")))
    assert found == ["", *(f"{length} [True, True]" for length in (400, 1500))]


@pytest.mark.linux("with OpenBLAS")
def test_attention_does_not_depend_on_cells_behind_whatever_the_threads() -> None:
    assert with_openblas(LOOK_BEYOND) == ["[True, True]"] * 3


def with_openblas(program: str, *words: str) -> list[str]:
    """Run a program in the environment of a worker; return what it prints."""
    env = {**os.environ, **MlxBackend().worker_env({"threads": 2})}
    command = [sys.executable, "-c", program, *words]
    done = subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.splitlines()


def test_batches_have_a_fixed_size_where_numbers_depend_on_it(
    open_model: Callable[..., Driver], monkeypatch: pytest.MonkeyPatch
) -> None:
    attend = mx.fast.scaled_dot_product_attention

    def by_size(queries: Any, keys: Any, values: Any, **how: Any) -> Any:
        return attend(queries, keys, values, **how) * (1 + 1e-5 * (len(queries) > 2))

    monkeypatch.setattr(mx.fast, "scaled_dot_product_attention", by_size)
    driver = open_model(reproducible=True)
    assert driver.engine.numerics.is_reproducible
    alone = answer(driver, 1, PROMPT[:40])
    driver.engine.trim()
    for other in range(4):
        driver.add(10 + other, PROMPT[other : other + 50], sampling=SAMPLED)
    driver.step()
    assert answer(driver, 2, PROMPT[:40]) == alone


def test_a_load_notices_sums_that_depend_on_the_longest_row(
    open_model: Callable[..., Driver], monkeypatch: pytest.MonkeyPatch
) -> None:
    attend = mx.fast.scaled_dot_product_attention

    def divided(queries: Any, keys: Any, values: Any, **how: Any) -> Any:
        seen = keys.shape[2]
        return attend(queries, keys, values, **how) * (1 + 1e-6 * (seen > 400))

    monkeypatch.setattr(mx.fast, "scaled_dot_product_attention", divided)
    numerics = open_model(reproducible=True).engine.numerics
    assert not numerics.is_reproducible
    assert "among others" in numerics.problem


@pytest.mark.parametrize("count", [9, pytest.param(300, marks=FULL)])
async def test_answers_are_the_same_whatever_happens_around_them(
    count: int, models: Callable[[str], Path], tmp_path: Path
) -> None:
    shutil.copytree(models("llama"), tmp_path / "models" / "model")
    config = CONFIG.format(paths=tmp_path / "models")
    async with running_kernel(tmp_path, {}, config, PLUGINS) as stage:
        found = await differences(stage, count, "model")
    assert found.different == []
    assert found.cached_tokens > 20 * count
    assert found.crashes == 1
