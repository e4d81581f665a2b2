"""Sampling as the files of a model say it."""

from __future__ import annotations

import math

import pytest

from lmx_kernel.models.maker_sampling import OFF, maker_sampling
from lmx_kernel.types import SamplingRequest


def test_files_that_say_nothing_leave_sampling_open():
    assert maker_sampling({}) == SamplingRequest()
    assert maker_sampling({"eos_token_id": [1, 2], "do_sample": True}) == SamplingRequest()


def test_fields_that_a_list_leaves_out_are_off():
    found = maker_sampling({"temperature": 1.0, "top_p": 1.0})
    assert found.given == OFF
    assert found.min_p == 0
    found = maker_sampling({"temperature": 0.6, "top_k": 20})
    assert found.given == OFF | {"temperature": 0.6, "top_k": 20}


def test_do_sample_false_takes_the_likeliest_token():
    assert maker_sampling({"temperature": 0.9}, greedy=True).temperature == 0
    assert maker_sampling({}, greedy=True).temperature == 0


def test_a_float32_is_shown_as_it_was_meant():
    assert maker_sampling({"top_p": 0.949999988079071}).top_p == 0.95


@pytest.mark.parametrize(
    "value",
    ["0.5", None, True, [0.5], {}, -1, math.nan, math.inf, pytest.param(10**400, id="1e400")],
)
def test_values_out_of_range_count_as_left_out(value):
    assert maker_sampling({"temperature": value}) == SamplingRequest()
    assert maker_sampling({"temperature": value, "top_p": 0.5}).temperature == 1.0


def test_top_k_keeps_all_tokens_at_minus_one():
    assert maker_sampling({"top_k": -1}).top_k == 0
