"""What LMX expects of a backend's half in the daemon, and of both halves together.

The engine alone is tried by the classes of :mod:`~lmx_kernel.testing.conformance.engine` and
:mod:`~lmx_kernel.testing.conformance.engine_features`.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import psutil
import pytest

from lmx_kernel.config import Settings
from lmx_kernel.errors import ModelUnusableError
from lmx_kernel.events import ModelLoaded, WorkerCrashed
from lmx_kernel.interfaces import Backend
from lmx_kernel.plugins.manager import Plugins
from lmx_kernel.testing.conformance.plugin import PluginConformance, check_active, check_name
from lmx_kernel.testing.harness import RunningKernel, running_kernel
from lmx_kernel.types import (
    GenerationRequest,
    LoadOptions,
    Location,
    ModelCard,
    SamplingRequest,
    TextDelta,
    TextPrompt,
)

OPTIONS = LoadOptions(context_length=256, parallel=2, cache_tokens=512)
DAMAGES = 30
WAIT_S = 60.0
TOKENS = 96
PROMPTS = ("The first.", "Another prompt, longer than the first one.", "3", "x y z " * 20)


class BackendConformance(PluginConformance):
    """For a plugin with the hook ``lmx_backends``.

    :cvar file: the name of a model's main file, such as ``tiny.acme``.
    """

    file: ClassVar[str]

    def write_model(self, path: Path) -> None:
        """Write a tiny model; ``path`` is its main file, whose folder exists and is empty."""
        raise NotImplementedError

    def backend_settings(self, settings: Settings) -> Mapping[str, Any]:
        """Return the backend's own section of the config."""
        return {}

    @pytest.fixture
    def backend(self, plugins: Plugins, settings: Settings) -> Backend:
        """The backend that is tried: the first of the plugin."""
        backends = self.own(plugins, "lmx_backends", plugins.backends(settings))
        check_active(plugins, self.module)
        assert backends, "lmx_backends returns nothing"
        return backends[0]

    @pytest.fixture
    def location(self, folder: Path) -> Location:
        """A folder with a good model."""
        place = folder / "acme" / "tiny"
        place.mkdir(parents=True)
        self.write_model(place / self.file)
        return location_of(place)

    @pytest.fixture
    def card(self, backend: Backend, location: Location) -> ModelCard:
        """The card of the good model."""
        [card] = backend.identify(location)
        return card

    def test_it_has_a_name(self, backend: Backend) -> None:
        check_name(backend.name)

    def test_a_good_model_is_recognised(
        self, backend: Backend, card: ModelCard, location: Location
    ) -> None:
        check_card(card, backend)
        assert card.problem is None, card.problem
        assert card.id == location.name, "a single model is called as its place is"
        assert self.file in {path.name for path in card.files}, "card.files is what delete deletes"
        backend.verify(card)

    def test_other_folders_have_no_models(self, backend: Backend, folder: Path) -> None:
        place = folder / "others"
        place.mkdir()
        for name in ("README.md", "photo.jpg", "data.json", "weights.unknown"):
            (place / name).write_bytes(b"something")
        assert list(backend.identify(location_of(place))) == []
        assert list(backend.identify(Location("gone", folder / "gone", ()))) == []

    def test_damaged_files_are_no_surprise(
        self, backend: Backend, location: Location, settings: Settings
    ) -> None:
        """Each gives a card, with its problem where it has one, and never an exception."""
        path = location.folder / self.file
        whole = path.read_bytes()
        for data in damaged(whole):
            path.write_bytes(data)
            for card in backend.identify(location):
                check_card(card, backend)
                self._check_usable(backend, card, settings)

    def test_an_empty_file_is_a_problem(self, backend: Backend, location: Location) -> None:
        (location.folder / self.file).write_bytes(b"")
        [card] = backend.identify(location)
        assert card.problem, "its owner should see why it cannot be used"
        check_name(card.problem)

    def test_a_file_that_is_gone_is_refused(
        self, backend: Backend, card: ModelCard, location: Location
    ) -> None:
        (location.folder / self.file).unlink()
        with pytest.raises(ModelUnusableError):
            backend.verify(card)

    def test_a_file_that_was_damaged_since_is_refused(
        self, backend: Backend, card: ModelCard, location: Location
    ) -> None:
        (location.folder / self.file).write_bytes(b"")
        with pytest.raises(ModelUnusableError):
            backend.verify(card)

    def test_a_file_that_cannot_be_read_is_a_problem(
        self, backend: Backend, location: Location
    ) -> None:
        path = location.folder / self.file
        path.unlink()
        path.mkdir()
        for card in backend.identify(location):
            assert card.problem

    def test_the_estimate_covers_the_weights_and_grows(
        self, backend: Backend, card: ModelCard, settings: Settings
    ) -> None:
        own = self.backend_settings(settings)
        totals = []
        for context in (64, 4096, 65_536):
            options = LoadOptions(context_length=context, parallel=4, cache_tokens=4 * context)
            estimate = backend.estimate(card, options, own)
            parts = (estimate.weights_bytes, estimate.cache_bytes, estimate.overhead_bytes)
            assert all(isinstance(part, int) and part >= 0 for part in parts), parts
            totals.append(estimate.total_bytes)
        assert totals == sorted(totals), f"a longer context takes less: {totals}"
        assert totals[0] >= card.size_bytes

    def test_it_says_what_its_workers_need(self, backend: Backend, settings: Settings) -> None:
        own = self.backend_settings(settings)
        for name, value in backend.worker_env(own).items():
            assert isinstance(name, str)
            assert isinstance(value, str), f"{name} must be text"
        device = backend.device_memory(own)
        assert device is None or device.size_bytes > 0

    def _check_usable(self, backend: Backend, card: ModelCard, settings: Settings) -> None:
        if card.problem:
            return
        try:
            backend.verify(card)
            estimate = backend.estimate(card, OPTIONS, self.backend_settings(settings))
        except ModelUnusableError:
            return
        assert estimate.total_bytes >= 0


class ServedConformance(BackendConformance):
    """Both halves: a model of the backend in a worker process of its own."""

    heavy = frozenset[str]()

    @pytest.fixture
    async def stage(self, home: Path, location: Location) -> AsyncIterator[RunningKernel]:
        """A kernel with the good model."""
        others = f'others = "{location.folder.parent}"\n'
        config = others + self.config(location.folder)
        async with running_kernel(home, {}, config, self.modules) as stage:
            yield stage

    async def test_it_is_served(self, stage: RunningKernel, location: Location) -> None:
        """Alone, side by side, and over a kill of the worker, with the same texts."""
        model = location.folder.name
        alone = [await text_of(stage, model, prompt) for prompt in PROMPTS]
        assert all(alone)
        [loaded] = stage.seen(ModelLoaded)
        measured = psutil.Process(loaded.pid).memory_full_info().uss
        assert loaded.memory_bytes >= measured * 0.5, "the estimate is far too low"
        together = await asyncio.gather(*(text_of(stage, model, prompt) for prompt in PROMPTS))
        assert together == alone
        assert await text_of(stage, model, PROMPTS[1], kill=loaded.pid) == alone[1]
        async with asyncio.timeout(WAIT_S):
            await stage.until(WorkerCrashed)


def location_of(folder: Path) -> Location:
    """Return a folder as a source would."""
    files = sorted(path.name for path in folder.iterdir())
    return Location(folder.name, folder, tuple(files))


def check_card(card: ModelCard, backend: Backend) -> None:
    """Check what the catalogue lists."""
    check_name(card.id)
    assert card.backend == backend.name
    assert card.path.is_absolute()
    assert all(path.is_absolute() for path in card.files)
    assert card.size_bytes >= 0
    assert card.problem is None or card.problem.strip()
    if card.problem is None:
        assert card.path.exists()
        assert card.size_bytes > 0
        assert 0 < card.context_length < 1 << 40


def damaged(data: bytes) -> Iterator[bytes]:
    """Yield :data:`DAMAGES` damaged versions of a file, always the same ones."""
    dice = random.Random(11)
    size = len(data)
    yield from (data[:end] for end in (1, size // 4, size // 2, size - 1))
    yield from (bytes(size), b"\xff" * size, data + b"more", b"{", b"null", b"[[[[", b"\x00" * 4096)
    for _ in range(DAMAGES - 11):
        place = dice.randrange(max(size, 1))
        yield data[:place] + dice.randbytes(dice.choice((1, 4))) + data[place + 1 :]


async def text_of(stage: RunningKernel, model: str, prompt: str, kill: int = 0) -> str:
    """Return what a model says, warm but repeatable.

    :param kill: the process to kill after the first tokens.
    """
    request = GenerationRequest(
        model=model,
        prompt=TextPrompt(prompt),
        sampling=SamplingRequest(seed=5, temperature=1.0),
        max_tokens=TOKENS,
    )
    text, pid = "", kill
    async with asyncio.timeout(WAIT_S):
        with await stage.kernel.generate(request) as answer:
            async for event in answer:
                if not isinstance(event, TextDelta):
                    continue
                if pid:
                    os.kill(pid, signal.SIGKILL)
                    pid = 0
                text += event.text
    return text
