"""What LMX expects of a monitor."""

from __future__ import annotations

import asyncio
import math
import re
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar

import pytest

from lmx_kernel.config import Settings
from lmx_kernel.events import Sampled
from lmx_kernel.interfaces import Monitor
from lmx_kernel.observe.monitors import watch
from lmx_kernel.plugins.manager import Plugins
from lmx_kernel.testing.conformance.plugin import PluginConformance, check_active, check_name

NAME = re.compile(r"[a-z][a-z0-9_]*")
LEAST_INTERVAL_S, MOST_INTERVAL_S = 0.1, 86_400.0


class MonitorConformance(PluginConformance):
    """For a plugin with the hook ``lmx_monitors``.

    :cvar keys: figures that each sample must have.
    """

    keys: ClassVar[frozenset[str]] = frozenset()

    @pytest.fixture
    def monitor(self, plugins: Plugins, settings: Settings) -> Monitor:
        """The monitor that is tried: the first of the plugin."""
        monitors = self.own(plugins, "lmx_monitors", plugins.monitors(settings))
        check_active(plugins, self.module)
        assert monitors, "lmx_monitors returns nothing"
        return monitors[0]

    def test_it_has_a_name_and_an_interval(self, monitor: Monitor) -> None:
        check_name(monitor.name)
        assert isinstance(monitor.interval_s, int | float)
        assert LEAST_INTERVAL_S <= monitor.interval_s <= MOST_INTERVAL_S, "in seconds"

    def test_samples_are_numbers(self, monitor: Monitor) -> None:
        for _ in range(3):
            check_sample(monitor.sample())

    def test_samples_have_what_was_promised(self, monitor: Monitor) -> None:
        first = set(monitor.sample())
        assert first, "a sample without a figure"
        assert self.keys <= first
        assert set(monitor.sample()) == first, "the names of the figures change"

    def test_a_sample_is_not_changed_later(self, monitor: Monitor) -> None:
        sample = monitor.sample()
        before = dict(sample)
        monitor.sample()
        assert dict(sample) == before, "each call returns a mapping of its own"

    def test_any_thread_may_sample(self, monitor: Monitor) -> None:
        with ThreadPoolExecutor(4) as pool:
            for sample in pool.map(lambda _: monitor.sample(), range(20)):
                check_sample(sample)

    def test_a_sample_takes_less_than_half_of_the_interval(self, monitor: Monitor) -> None:
        start_s = time.perf_counter()
        monitor.sample()
        assert time.perf_counter() - start_s < monitor.interval_s / 2

    async def test_its_figures_are_published(self, monitor: Monitor) -> None:
        told: asyncio.Queue[Sampled] = asyncio.Queue()
        task = asyncio.create_task(watch(monitor, told.put_nowait))  # type: ignore[arg-type]
        try:
            event = await asyncio.wait_for(told.get(), 10)
        finally:
            task.cancel()
        assert event.monitor == monitor.name
        check_sample(event.values)


def check_sample(sample: Mapping[str, float]) -> None:
    """Check that a sample maps names to finite numbers."""
    assert isinstance(sample, Mapping), f"sample() returned a {type(sample).__name__}"
    for name, value in sample.items():
        assert isinstance(name, str)
        assert NAME.fullmatch(name), f"{name!r}: small letters, digits and underscores"
        assert type(value) in (int, float), f"{name} is a {type(value).__name__}"
        assert math.isfinite(value), f"{name} is {value}"
