"""What LMX expects of a model architecture, as a class that an author's test derives from."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten

from lmx_kernel.testing.driver import Driver
from lmx_kernel.types import EngineSpec, LoadOptions, Location, Sampling
from lmx_mlx_backend import caches
from lmx_mlx_backend.architectures import GROUP
from lmx_mlx_backend.backend import MlxBackend
from lmx_mlx_backend.batch_check import Rows, prompt_of, prompted
from lmx_mlx_backend.testing.check import check_architecture
from lmx_mlx_backend.testing.tiny_models import write_model
from lmx_mlx_backend.worker import lmx_open_engine

MOST_ROWS = 5
WALK = 14
NEAR = 1e-3
OPTIONS = LoadOptions(context_length=256, parallel=4, cache_tokens=1024)
SAMPLINGS = (Sampling(temperature=0, seed=1), Sampling(temperature=1.0, seed=2))


class ArchitectureConformance:
    """For a module of the group ``lmx.mlx.architectures``.

    :cvar architecture: the module, which has ``Model`` and ``ModelArgs``.
    :cvar config: as in config.json, made small: at least 300 tokens.
    :cvar can_batch: whether sequences may share a batch. If not, they are computed in turns.
    """

    architecture: ClassVar[ModuleType]
    config: ClassVar[Mapping[str, Any]]
    can_batch: ClassVar[bool] = True

    @pytest.fixture
    def model(self) -> Any:
        """The model with random weights."""
        mx.random.seed(3)
        arguments = self.architecture.ModelArgs.from_dict(dict(self.config))
        model = self.architecture.Model(arguments)
        mx.eval(model.parameters())
        return model

    @pytest.fixture
    def batched(self, model: Any) -> Any:
        """The same; the test is skipped where no batch is wanted."""
        if not self.can_batch:
            pytest.skip("its sequences are computed in turns")
        missing = [layer for layer in caches.new(model) if not hasattr(layer, "merge")]
        assert not missing, f"{type(missing[0]).__name__} has no merge: can_batch = False?"
        return model

    @pytest.fixture
    def folder(self, tmp_path: Path, model: Any) -> Path:
        """A model on disk."""
        return write_model(tmp_path / "model", model, self.config)

    @pytest.fixture
    def driver(self, folder: Path) -> Iterator[Driver]:
        """An engine on that."""
        names = tuple(file.name for file in folder.iterdir())
        [card] = MlxBackend().identify(Location("model", folder, names))
        assert card.problem is None, card.problem
        spec = EngineSpec(card=card, options=OPTIONS, settings={"device": "cpu"})
        engine = lmx_open_engine(spec, _ignore)
        yield Driver(engine)
        engine.close()

    def test_it_is_registered(self) -> None:
        found = {entry.name: entry.value for entry in entry_points(group=GROUP)}
        assert found.get(str(self.config["model_type"])) == self.architecture.__name__

    def test_it_can_be_served(self) -> None:
        check_architecture(self.architecture, self.config)

    def test_other_keys_of_a_config_are_passed_over(self) -> None:
        config = {**self.config, "transformers_version": "9", "no_such_key": [1]}
        self.architecture.Model(self.architecture.ModelArgs.from_dict(config))

    def test_the_config_counts(self, model: Any) -> None:
        """The vocabulary and the number of layers are those of the config."""
        logits = model(mx.array([[1, 2]]))
        assert logits.shape[-1] == self.config.get("vocab_size", logits.shape[-1])
        layers = self.config.get("num_hidden_layers", len(model.layers))
        assert len(model.layers) == len(caches.new(model)) == layers

    def test_each_layer_counts(self, model: Any) -> None:
        """A change of any weight of any layer changes the logits."""
        tokens = mx.array([list(range(3, 9))])
        before = model(tokens)
        for number, layer in enumerate(model.layers):
            for name, weight in tree_flatten(layer.parameters()):
                layer.load_weights([(name, weight + 0.5)], strict=False)
                difference = mx.abs(model(tokens) - before).max().item()
                layer.load_weights([(name, weight)], strict=False)
                assert difference > 1e-6, f"{name} of layer {number} changes nothing"

    def test_each_token_counts_from_afar(self, model: Any) -> None:
        """What came before matters, in its order, with a cache as without one."""
        prompt = list(range(3, 15))
        last = _last(model, prompt)
        assert not _near(_last(model, [99, *prompt[1:]]), last), "the first token is forgotten"
        swapped = [prompt[1], prompt[0], *prompt[2:]]
        assert not _near(_last(model, swapped), last), "the order of tokens does not matter"

    def test_the_pieces_of_a_prompt_do_not_matter(self, model: Any) -> None:
        prompt = [3 + place * 7 % 90 for place in range(24)]
        whole = model(mx.array([prompt]))
        for lengths in ((24,), (12, 12), (1, 23), (23, 1), (5, 7, 1, 11), (1,) * 24):
            cache, start = caches.new(model), 0
            for length in lengths:
                piece = prompt[start : start + length]
                found = model(mx.array([piece]), cache=cache)
                expected = whole[:, start : start + length]
                assert _near(found, expected), f"pieces of {lengths} differ at {start}"
                start += length

    def test_a_copy_of_a_cache_is_independent(self, model: Any) -> None:
        cache = prompted(model, prompt_of(6))
        copy = caches.copy(cache)
        first = model(mx.array([[5, 6, 7]]), cache=copy)
        again = caches.copy(cache)
        assert _near(model(mx.array([[5, 6, 7]]), cache=again), first), (
            "a copy changes its original"
        )
        assert _near(model(mx.array([[5, 6, 7]]), cache=cache), first), (
            "a copy changes its original"
        )

    def test_two_caches_are_independent(self, model: Any) -> None:
        alone = model(mx.array([[5]]), cache=prompted(model, prompt_of(6)))
        cache = prompted(model, prompt_of(6))
        prompted(model, prompt_of(4, 2))
        assert _near(model(mx.array([[5]]), cache=cache), alone), "models keep state beside caches"

    def test_a_cache_says_what_it_takes(self, model: Any) -> None:
        cache = prompted(model, prompt_of(6))
        for layer in cache:
            arrays = [one for _, one in tree_flatten(layer.state) if isinstance(one, mx.array)]
            assert arrays, f"{type(layer).__name__}.state has no arrays"
            assert layer.nbytes >= sum(one.nbytes for one in arrays) / 2
            assert 0 < layer.nbytes < 1 << 24, "nbytes is what its arrays take"
        if self.can_batch:
            prompts = [prompt_of(6, row) for row in range(3)]
            batch = Rows.of(model, prompts).batch
            assert caches.size_bytes(batch) >= 2 * caches.size_bytes(cache) / 4

    def test_trimming_forgets_the_end(self, model: Any) -> None:
        cache = prompted(model, prompt_of(8))
        if not caches.can_trim(cache):
            return
        caches.trim(cache, 3)
        expected = model(mx.array([[5]]), cache=prompted(model, prompt_of(5)))
        assert _near(model(mx.array([[5]]), cache=cache), expected)

    def test_merged_rows_are_what_they_are_alone(self, batched: Any) -> None:
        for lengths in ((4, 4), (1, 6), (6, 1), (3, 5, 2, 7)):
            rows = Rows.of(batched, [prompt_of(one, row) for row, one in enumerate(lengths)])
            for token in (0, 5):
                rows.step([[token + row] for row in range(len(lengths))])

    def test_rows_that_stay_are_what_they_are_alone(self, batched: Any) -> None:
        for kept in ([0, 1], [0, 2], [1, 2], [0, 3], [2, 3], [1, 2, 3]):
            rows = Rows.of(batched, [prompt_of(2 + row, row) for row in range(4)])
            rows.step([[1], [2], [3], [4]])
            rows.select(kept)
            rows.step([[5] for _ in kept])
            rows.step([[6 + row] for row in range(len(kept))])

    def test_rows_that_leave_are_what_they_are_alone(self, batched: Any) -> None:
        for left in range(3):
            rows = Rows.of(batched, [prompt_of(5 - row, row) for row in range(3)])
            rows.step([[1], [2], [3]])
            taken = rows.take(left)
            stayed = [row for row in range(3) if row != left]
            rows.select(stayed)
            taken.step([[4]])
            rows.step([[5], [6]])
            taken.step([[7]])

    def test_rows_that_come_are_what_they_are_alone(self, batched: Any) -> None:
        for lengths in ((1, 6), (6, 1), (3, 3)):
            first, second = (prompt_of(one, row) for row, one in enumerate(lengths))
            rows = Rows.of(batched, [first, prompt_of(2, 5)])
            rows.step([[1], [2]])
            other = Rows.of(batched, [second, prompt_of(4, 7)])
            rows.extend(other)
            rows.step([[3], [4], [5], [6]])
            rows.step([[7], [7], [7], [7]])

    def test_a_row_alone_becomes_one_of_a_batch(self, batched: Any) -> None:
        """As when a request ends, and another one begins."""
        rows = Rows.of(batched, [prompt_of(3, 1), prompt_of(5, 2)])
        rows.step([[1], [2]])
        single = rows.take(1)
        single.step([[3]])
        single.batch = caches.merge([single.batch])
        single.extend(Rows.of(batched, [prompt_of(4, 3)]))
        single.step([[5], [6]])

    def test_a_batch_may_be_copied(self, batched: Any) -> None:
        rows = Rows.of(batched, [prompt_of(3, 1), prompt_of(5, 2)])
        cache = caches.copy(caches.extract(rows.batch, 0))
        rows.step([[1], [2]])
        rows.take(0)
        expected = batched(mx.array([[1]]), cache=prompted(batched, prompt_of(3, 1)))
        assert _near(batched(mx.array([[1]]), cache=cache), expected)

    @pytest.mark.parametrize("seed", range(4))
    def test_rows_are_what_they_are_alone_whatever_is_done(self, batched: Any, seed: int) -> None:
        """Requests come and go as they do in a server, in some order."""
        dice = random.Random(seed)
        rows = Rows.of(batched, [_prompt(dice), _prompt(dice)])
        for _ in range(WALK):
            count = len(rows.alone)
            deed = dice.choice(("come", "leave", "stay", "step", "step"))
            if deed == "come" and count < MOST_ROWS:
                rows.extend(Rows.of(batched, [_prompt(dice) for _ in range(dice.choice((1, 2)))]))
            elif deed == "leave" and count > 2:
                left = dice.randrange(count)
                rows.take(left).step([[dice.randrange(10)]])
                rows.alone[left] = caches.new(batched)  # it went on, in a cache of its own
                rows.select([row for row in range(count) if row != left])
            elif deed == "stay" and count > 2:
                rows.select(sorted(dice.sample(range(count), count - 1)))
            else:
                rows.step([[dice.randrange(10)] for _ in range(count)])

    def test_requests_at_the_same_time_are_served_as_alone(self, driver: Driver) -> None:
        """By the engine: they come and leave between steps, at any length of prompt."""
        prompts = [[0, *range(20 + 7 * n, 24 + 11 * n)] for n in range(3)]
        for sampling in SAMPLINGS:
            alone = [driver.answer(tokens, 12, sampling=sampling) for tokens in prompts]
            driver.engine.trim()
            base = len(driver.tokens) + 5000
            for number, tokens in enumerate(prompts):
                driver.add(base + number, tokens, sampling=sampling)
                driver.step()
                driver.step()
            assert driver.run(base, base + 1, base + 2, count=12) == alone

    def test_a_request_goes_on_after_a_restart(self, driver: Driver) -> None:
        tokens = [0, *range(30, 60)]
        for sampling in SAMPLINGS:
            whole = driver.answer(tokens, 16, sampling=sampling)
            driver.engine.trim()
            rest = driver.answer(tokens + whole[:7], 9, produced=7, sampling=sampling)
            assert whole[:7] + rest == whole

    def test_a_kept_prefix_changes_nothing(self, driver: Driver) -> None:
        shared = [0, *range(30, 80)]
        expected = []
        for tail in (5, 6, 7):
            expected.append(driver.answer([*shared, tail], 8))
            driver.engine.trim()
        driver.answer(shared, 2)
        assert [driver.answer([*shared, tail], 8) for tail in (5, 6, 7)] == expected


def _ignore(share: float, doing: str = "") -> None:
    """Take no note of the progress of a load."""


def _last(model: Any, prompt: list[int]) -> Any:
    cache = prompted(model, prompt[:-1])
    return model(mx.array([prompt[-1:]]), cache=cache)


def _near(found: Any, expected: Any) -> bool:
    worst: float = mx.abs(found - expected).max().item()
    return worst < NEAR


def _prompt(dice: random.Random) -> list[int]:
    return [dice.randrange(10) for _ in range(dice.randrange(1, 9))]
