"""Which model a name means, and that a name keeps its model."""

from __future__ import annotations

from pathlib import Path

import pytest

from lmx_kernel.models.labels import as_label, is_label, label_of
from lmx_kernel.models.names import Names
from lmx_kernel.types import ModelCard


def card(name, *aliases, added_at=0.0, problem=None):
    return ModelCard(
        id=name,
        backend="b",
        path=Path(name),
        format="f",
        architecture="a",
        size_bytes=0,
        context_length=0,
        aliases=aliases,
        added_at=added_at,
        problem=problem,
    )


def found(name, *cards):
    card = Names(cards).find(name)
    return card and card.id


@pytest.mark.parametrize("name", ["pub/Model", "PUB/model", "model", "Model@Q4", "pub/model@q4"])
def test_a_model_answers_to_its_id_its_aliases_and_their_ends_in_any_case(name):
    assert found(name, card("pub/Model", "pub/Model@Q4"), card("x/y")) == "pub/Model"


def test_an_id_goes_before_an_alias():
    assert found("b", card("a", "b"), card("b", added_at=9)) == "b"


def test_of_several_claims_to_an_alias_the_oldest_counts_that_can_be_used():
    cards = [card("new", "x", added_at=2), card("old", "x", added_at=1)]
    assert found("x", *cards) == "old"
    assert found("x", *cards, card("broken", "x", problem="cut off")) == "old"


def test_an_end_that_two_models_share_is_nobodys():
    assert found("m", card("a/m"), card("b/m")) is None
    assert found("m@q", card("a/m", "a/m@q"), card("b/m", "b/m@q")) is None
    assert found("M", card("m")) == "m"
    assert found("M", card("m"), card("M")) == "M"


@pytest.mark.parametrize(
    ("path", "label"),
    [
        ("x-Q4_K_M.gguf", "Q4_K_M"),
        ("a/x.q8_0-00001-of-00002.gguf", "Q8_0"),
        ("Q4_K_M/x-00001-of-00002.gguf", "Q4_K_M"),
        ("UD-IQ2_XXS/deep/x.gguf", "UD-IQ2_XXS"),
        ("BF16/x-Q8_0.gguf", "Q8_0"),
        ("x-fp16.gguf", "F16"),
        ("x-NVFP4.gguf", "NVFP4"),
        ("q4ever/faq.gguf", None),
        ("x.gguf", None),
    ],
)
def test_a_label_is_read_from_a_file_or_else_from_its_folder(path, label):
    assert label_of(path) == label


def test_a_name_that_is_a_label():
    assert is_label("q4_k_m")
    assert not is_label("x-q4_k_m")
    assert (as_label("fp16"), as_label("my-File")) == ("F16", "my-File")
