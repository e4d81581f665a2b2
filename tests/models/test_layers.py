"""Each setting by everyone who may set it: the first in the order counts."""

from __future__ import annotations

from pathlib import Path

import pytest
from attrs import evolve

from lmx_kernel.models.layers import UNSET, Layer, flat, load_options, resolve
from lmx_kernel.models.maker_sampling import OFF
from lmx_kernel.models.model_table import ModelTable, ModelValues, Profile, SamplingTable, fits
from lmx_kernel.models.request_defaults import RequestDefaults
from lmx_kernel.types import (
    ChatPrompt,
    EmbeddingPrompt,
    GenerationRequest,
    ModelCard,
    Sampling,
    SamplingRequest,
    SettingValue,
    TextPrompt,
)

CARD = ModelCard(
    id="acme/Tiny-1B",
    backend="x",
    path=Path("x"),
    format="x",
    architecture="x",
    size_bytes=1,
    context_length=4096,
)
VALUES = resolve([Layer("LMX", UNSET)])
CHAT = GenerationRequest(model="m", prompt=ChatPrompt(()))


def complete(request, values):
    return RequestDefaults.of(values).complete(request)


def with_values(**values):
    changed = {key.replace("__", "."): SettingValue(one, "test") for key, one in values.items()}
    return VALUES | changed


@pytest.mark.parametrize("keys", [("a",), ("sampling.top_p",), ("template_options.x", "b")])
def test_the_first_layer_that_has_a_key_counts(keys):
    order = ["api", "config table 2", "config table 1", "model's file", "LMX"]
    while order:
        layers = [Layer(source, dict.fromkeys(keys, source)) for source in order]
        found = resolve([Layer("nobody", {"other": 1}), *layers])
        assert {found[key] for key in keys} == {SettingValue(order[0], order[0])}
        del order[0]


SAMPLING = {name: value + 0.5 if name != "top_k" else 7 for name, value in OFF.items()}


@pytest.mark.parametrize("name", OFF)
def test_a_request_counts_before_the_settings_field_by_field(name):
    values = with_values(**{f"sampling__{key}": one for key, one in SAMPLING.items()})
    asked = {name: 3}
    found = complete(evolve(CHAT, sampling=SamplingRequest(**asked)), values)
    assert found.sampling.given == SAMPLING | asked


def test_without_settings_a_request_has_lmx_s_own_sampling():
    found = complete(CHAT, VALUES).sampling.complete(seed=4)
    assert found == evolve(Sampling(), seed=4)


def test_zero_is_a_value_that_was_asked_for():
    values = with_values(sampling__temperature=0.9)
    found = complete(evolve(CHAT, sampling=SamplingRequest(temperature=0)), values)
    assert found.sampling.temperature == 0


def test_seed_and_bias_of_a_table_reach_the_request():
    table = SamplingTable(seed=5, logit_bias={"7": -1.5})
    values = resolve([Layer("t", flat(ModelValues(sampling=table))), Layer("LMX", UNSET)])
    found = complete(CHAT, values).sampling
    assert (found.seed, found.logit_bias) == (5, {7: -1.5})


@pytest.mark.parametrize(
    ("asked", "default", "most", "expected"),
    [
        (None, None, None, None),
        (None, 10, None, 10),
        (None, None, 20, 20),
        (None, 30, 20, 20),
        (5, 10, 20, 5),
        (50, 10, 20, 20),
        (50, 10, None, 50),
        (0, 10, 20, 0),
    ],
)
def test_the_length_of_an_answer(asked, default, most, expected):
    values = with_values(max_tokens=default, max_tokens_limit=most)
    assert complete(evolve(CHAT, max_tokens=asked), values).max_tokens == expected


def test_template_options_are_merged_by_name():
    values = with_values(template_options__thinking=False, template_options__style="short")
    request = evolve(CHAT, prompt=ChatPrompt((), (), {"thinking": True}))
    assert complete(request, values).prompt.options == {"thinking": True, "style": "short"}


def test_stop_and_reasoning_are_those_of_the_request_if_it_has_any():
    values = with_values(stop=("END",), reasoning_tokens=100)
    assert complete(CHAT, values).stop == ("END",)
    assert complete(CHAT, values).reasoning_tokens == 100
    asked = evolve(CHAT, stop=("x",), reasoning_tokens=0)
    assert complete(asked, values).stop == ("x",)
    assert complete(asked, values).reasoning_tokens == 0


def test_reasoning_is_limited_in_conversations_only():
    values = with_values(reasoning_tokens=100)
    request = evolve(CHAT, prompt=TextPrompt("x"))
    assert complete(request, values).reasoning_tokens is None


def test_embeddings_are_left_alone():
    request = evolve(CHAT, prompt=EmbeddingPrompt((TextPrompt("x"),)))
    assert complete(request, with_values(max_tokens=3)) is request


def test_a_table_is_known_by_its_keys_and_what_is_not_set_is_not_there():
    table = ModelTable(
        match="*",
        sampling=SamplingTable(top_k=3),
        template_options={"a": [1]},
        profiles={"fast": Profile(max_tokens=4)},
        pinned=False,
        stop=(),
        backend_keys={"threads": 2},
    )
    assert flat(table) == {
        "sampling.top_k": 3,
        "template_options.a": [1],
        "profiles.fast": Profile(max_tokens=4),
        "pinned": False,
        "stop": (),
        "threads": 2,
    }


def test_no_context_is_longer_than_trained_and_the_cache_holds_it():
    values = with_values(context_length=8192, parallel=2, cache_tokens=0)
    options = load_options(values, CARD)
    assert (options.context_length, options.cache_tokens) == (4096, 8192)
    options = load_options(with_values(context_length=100, parallel=2, cache_tokens=5), CARD)
    assert (options.context_length, options.cache_tokens) == (100, 100)


@pytest.mark.parametrize(
    ("match", "is_for_it"),
    [
        ("acme/Tiny-1B", True),
        ("ACME/tiny-1b", True),
        ("tiny-1b", True),
        ("*", True),
        ("acme/*", True),
        ("tiny*", True),
        ("tiny", False),
        ("acme", False),
        ("[st]iny-?B", True),
    ],
)
def test_what_a_table_is_for(match, is_for_it):
    assert fits(match, CARD.id) is is_for_it
