"""Models that embed: a real one against vectors computed without llama.cpp, and a tiny causal one.

``minilm_vectors.json`` was computed in float64 by a page of numpy from the weights that
``scripts/embedding_model.py`` makes into GGUF, with the tokens of the model's own tokenizer.
"""

from __future__ import annotations

import base64
import json
import math
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lmx_gguf_backend.backend import GgufBackend

from lmx_kernel.engine import Sequence, Step
from lmx_kernel.errors import (
    ContextOverflowError,
    EngineFailedError,
    InvalidRequestError,
    ModelUnusableError,
)
from lmx_kernel.types import EngineSpec, LoadOptions, Location, ModelCard, Sampling

MODEL = Path.home() / ".lmx/models/all-minilm-l6-v2/all-MiniLM-L6-v2.F16.gguf"
KNOWN = json.loads((Path(__file__).parent / "minilm_vectors.json").read_text())
U32, MEAN, CLS, LAST, RANK = 4, 1, 2, 3, 4


def card_of(path: Path) -> ModelCard:
    return GgufBackend().identify(Location("model", path.parent, (path.name,)))[0]


def spec_of(path: Path, context: int = 512, **settings: Any) -> EngineSpec:
    options = LoadOptions(context_length=context, parallel=4, cache_tokens=2 * context)
    return EngineSpec(card=card_of(path), options=options, settings=settings)


@pytest.fixture(scope="session")
def model_path() -> Path:
    path = Path(os.environ.get("LMX_EMBEDDING_MODEL", MODEL))
    if not path.is_file():
        pytest.fail(f"the embedding model is missing: {path} (`make test` fetches it)", False)
    return path


@pytest.fixture
def open_engine() -> Iterator[Callable[..., Any]]:
    """Opens engines, and closes them."""
    from lmx_gguf_backend.worker import lmx_open_engine

    engines: list[Any] = []

    def opener(path: Path, **more: Any) -> Any:
        engines.append(lmx_open_engine(spec_of(path, **more), lambda *_: None))
        return engines[-1]

    yield opener
    for engine in engines:
        engine.close()


@pytest.fixture
def minilm(open_engine: Callable[..., Any], model_path: Path) -> Any:
    return open_engine(model_path)


@pytest.fixture
def pooled(tiny: Any, tmp_path: Path) -> Callable[..., Path]:
    """Writes the tiny model as one that embeds."""

    def write(pooling: int) -> Path:
        tiny.metadata["llama.pooling_type"] = (U32, pooling)
        return tiny.write(tmp_path / f"pooled-{pooling}.gguf")

    return write


def encode(engine: Any, text: str) -> list[int]:
    return engine.tokenizer.encode(text, add_special=True, parse_special=False)


def assert_near(found: list[list[float]], expected: list[list[float]]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert np.dot(one, other) > 0.9999


def test_vectors_are_those_of_the_model(minilm: Any) -> None:
    tokens = [encode(minilm, known["text"]) for known in KNOWN]
    assert tokens == [known["tokens"] for known in KNOWN]
    for known, vector in zip(KNOWN, minilm.embed(tokens), strict=True):
        expected = np.frombuffer(base64.b64decode(known["vector"]), np.float16).astype(float)
        assert len(vector) == 384
        assert math.isclose(np.linalg.norm(vector), 1, rel_tol=1e-5)
        assert np.dot(vector, expected / np.linalg.norm(expected)) >= 0.9999


def test_what_means_the_same_lies_close(minilm: Any) -> None:
    texts = ("A cat sleeps.", "A feline is napping.", "The central bank raised its rates.")
    cat, feline, bank = minilm.embed([encode(minilm, text) for text in texts])
    assert np.dot(cat, feline) > 0.6 > 0.2 > np.dot(cat, bank)


def test_a_text_is_the_same_alone_and_among_many(minilm: Any) -> None:
    tokens = [encode(minilm, "word " * (1 + n * 7 % 90) + str(n)) for n in range(150)]
    tokens[70] = encode(minilm, "long " * 510)
    assert len(tokens[70]) == 512
    some = (0, 69, 70, 71, 149)
    many = minilm.embed(tokens)
    assert_near([minilm.embed([tokens[n]])[0] for n in some], [many[n] for n in some])


def test_an_engine_that_embeds_does_not_answer(minilm: Any) -> None:
    with pytest.raises(InvalidRequestError, match="makes embeddings only"):
        minilm.add(Sequence(id=1, tokens=[101], produced=0, sampling=Sampling(seed=1)))
    assert minilm.step() == Step()
    minilm.remove(1)
    minilm.trim()
    assert minilm.stats().cache_tokens_used == 0


@pytest.mark.parametrize(
    ("tokens", "problem"),
    [
        ([], InvalidRequestError),
        ([101, -1], InvalidRequestError),
        ([101, 30_522], InvalidRequestError),
        ([101] * 513, ContextOverflowError),
    ],
)
def test_what_must_not_reach_the_library_is_refused(minilm: Any, tokens: Any, problem: Any) -> None:
    with pytest.raises(problem):
        minilm.embed([[101, 102], tokens])
    assert len(minilm.embed([[101, 102]])) == 1


@pytest.mark.parametrize("flash_attention", [True, False])
@pytest.mark.parametrize("context", [64, 512])
def test_the_estimate_of_an_encoder_is_near_the_librarys_figure(
    model_path: Path, context: int, flash_attention: bool
) -> None:
    from lmx_gguf_backend.worker import lmx_measure_memory

    spec = spec_of(model_path, context, flash_attention=flash_attention)
    estimate = GgufBackend().estimate(spec.card, spec.options, spec.settings)
    exact = lmx_measure_memory(spec)
    assert exact is not None
    assert exact <= estimate.total_bytes <= 1.15 * exact
    assert estimate.cache_bytes == 0


def test_an_encoders_card_says_what_it_is_for(model_path: Path) -> None:
    card = card_of(model_path)
    assert (card.architecture, card.context_length, card.quantization) == ("bert", 512, "F16")
    assert card.capabilities == {"embedding"}
    assert card.problem is None
    GgufBackend().verify(card)


@pytest.mark.parametrize("pooling", [MEAN, CLS, LAST])
def test_a_causal_model_that_pools_embeds_too(
    open_engine: Callable[..., Any], pooled: Callable[..., Path], pooling: int
) -> None:
    path = pooled(pooling)
    assert card_of(path).capabilities == {"embedding"}
    engine = open_engine(path)
    texts = [[1, 20, 30, 40], [1, 40, 30, 20], [1, 50], [2, 50]]
    vectors = engine.embed(texts)
    assert_near([engine.embed([tokens])[0] for tokens in texts], vectors)
    assert abs(np.dot(vectors[2], vectors[3])) < 0.999
    if pooling == CLS:  # the first token of a causal model sees nothing of the others
        assert_near(vectors[:1] * 2, vectors[1:3])
    else:
        assert np.dot(vectors[0], vectors[1]) < 0.999
    spec = spec_of(path)
    estimate = GgufBackend().estimate(spec.card, spec.options, {})
    assert estimate.cache_bytes == 512 * 2 * 32 * 2 * 2  # layers, key and value, float16


def test_numbers_that_are_not_finite_fail(
    open_engine: Callable[..., Any], pooled: Callable[..., Path], tiny: Any
) -> None:
    shape, kind, data = tiny.tensors["token_embd.weight"]
    size = shape[0] * 4
    spoilt = data[: 20 * size] + struct.pack("<f", math.nan) * shape[0] + data[21 * size :]
    tiny.tensors["token_embd.weight"] = (shape, kind, spoilt)
    engine = open_engine(pooled(MEAN))
    with pytest.raises(EngineFailedError, match="not finite"):
        engine.embed([[1, 20]])
    assert len(engine.embed([[1, 21]])) == 1


def test_models_that_rank_are_refused(pooled: Callable[..., Path]) -> None:
    card = card_of(pooled(RANK))
    assert card.problem == "models that rank texts are not served"
    with pytest.raises(ModelUnusableError, match="rank"):
        GgufBackend().verify(card)
