"""How it is decided whether loading is quicker than computing."""

from __future__ import annotations

import pytest

from lmx_kernel.prefixes import read_rate
from lmx_kernel.prefixes.read_rate import FIRST_BYTES_S, ReadRate
from lmx_kernel.prefixes.store import PrefixStore


class Clock:
    def __init__(self):
        self.now = 0.0

    def perf_counter(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(read_rate.time, "perf_counter", clock.perf_counter)
    return clock


def test_a_disk_is_measured_when_a_model_was_loaded(clock):
    def read(size_bytes):
        clock.now += 2.0
        return size_bytes

    rate = ReadRate()
    rate.measure(read)
    assert rate.bytes_s == read_rate.SAMPLE_BYTES / 2
    assert not rate.is_worth(read_rate.SAMPLE_BYTES, 1.9)
    assert rate.is_worth(read_rate.SAMPLE_BYTES, 2.0)


@pytest.mark.parametrize("stored_bytes", [0, read_rate.LEAST_BYTES - 1])
def test_a_store_that_is_empty_or_small_tells_nothing(clock, stored_bytes):
    def read(size_bytes):
        clock.now += 2.0
        return stored_bytes

    rate = ReadRate()
    rate.measure(read)
    assert rate.bytes_s == FIRST_BYTES_S


def test_a_rate_that_was_low_once_is_tried_again():
    """Nothing is read at a low rate, so nothing would ever show that the disk is quick again."""
    rate = ReadRate()
    rate.observe(1000, 1.0)
    refused = 0
    while not rate.is_worth(2000, 1.0):
        refused += 1
    assert 1 < refused < 20


def test_what_was_used_last_is_the_sample(tmp_path):
    warnings = []
    store = PrefixStore.open(
        tmp_path / "p", "m", b"i" * 16, limit_bytes=1 << 20, ttl_s=0, warn=warnings.append
    )
    assert store.sample(100) == 0
    for index in range(3):
        store.write(index, bytes([index]) * 16, bytes(60))
    store.touch([(0, bytes(16))])
    (store.folder / f"000001-{(bytes([1]) * 16).hex()}.state").write_bytes(b"damaged")
    assert store.sample(60) == 60
    assert store.sample(1000) == 120
    assert len(warnings) == 1
