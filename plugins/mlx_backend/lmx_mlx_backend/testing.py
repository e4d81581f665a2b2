"""One check for a new model architecture: what serving it rests on, tried on random weights."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any

import mlx.core as mx
from mlx_lm.models.cache import can_trim_prompt_cache, make_prompt_cache

PROMPT = (3, 1, 4, 1, 5, 9, 2, 6)
TOLERANCE = 1e-3  # float32; what differs more is a fault, not rounding


def check_architecture(module: ModuleType, config: Mapping[str, Any]) -> None:
    """Build ``module.Model`` from ``config`` with random weights and try all that serving needs.

    :param module: has ``Model`` and ``ModelArgs``.
    :param config: as in config.json, made small; the vocabulary has at least ten tokens.
    :raises AssertionError: says which promise is broken.
    """
    for name in ("Model", "ModelArgs"):
        assert hasattr(module, name), f"{module.__name__} has no {name}"
    mx.random.seed(0)
    model = module.Model(module.ModelArgs.from_dict(dict(config)))
    mx.eval(model.parameters())
    assert hasattr(model, "layers"), "Model.layers is needed to make caches"
    whole = _logits(model, [PROMPT])
    assert whole.ndim == 3, f"logits have shape {whole.shape}, not (rows, tokens, vocabulary)"
    assert whole.shape[:2] == (1, len(PROMPT)), f"logits of {len(PROMPT)} tokens: {whole.shape}"
    assert mx.all(mx.isfinite(whole)).item(), "logits are not finite"
    _check_same(whole[:, :5], _logits(model, [PROMPT[:5]]), "a token sees the ones after it")
    _check_same(whole, _in_pieces(model, (5, 1, 1, 1)), "the cache changes the result")
    both = _logits(model, [PROMPT, PROMPT[::-1]])
    _check_same(whole, both[:1], "a row depends on its neighbour")
    for pieces in ((1, 1), (1, 4)):
        _check_batch(model, whole, pieces)


def _logits(model: Any, rows: list[Any]) -> Any:
    return model(mx.array(rows))


def _in_pieces(model: Any, lengths: tuple[int, ...]) -> Any:
    cache, start, pieces = make_prompt_cache(model), 0, []
    for length in lengths:
        piece = mx.array([PROMPT[start : start + length]])
        pieces.append(model(piece, cache=cache))
        start += length
    return mx.concatenate(pieces, axis=1)


def _check_batch(model: Any, whole: Any, pieces: tuple[int, int]) -> None:
    """Let two rows of unequal length go on together by ``pieces``, the shorter one padded; models
    that cannot are served one by one, and those with a state that takes padding in are not asked.
    """
    done, longest = (len(PROMPT) - 1, 3), max(pieces)
    rows = [_prompted(model, length) for length in done]
    layers = [layer for row in rows for layer in row]
    is_padded = min(pieces) < longest
    if not all(hasattr(layer, "merge") for layer in layers):
        return
    if is_padded and not all(map(can_trim_prompt_cache, rows)):
        return
    batch = [layers[0].merge(list(layers)) for layers in zip(*rows, strict=True)]
    if is_padded:
        for layer in batch:
            layer.prepare(lengths=list(pieces), right_padding=[longest - one for one in pieces])
    tokens = [[*PROMPT[start:], *PROMPT][:longest] for start in done]
    found = model(mx.array(tokens), cache=batch)
    for row, (start, length) in enumerate(zip(done, pieces, strict=True)):
        expected, own = whole[:, start : start + length], found[row : row + 1, :length]
        _check_same(expected, own, "a row in a batch is not what it is alone")


def _prompted(model: Any, length: int) -> list[Any]:
    cache: list[Any] = make_prompt_cache(model)
    mx.eval(model(mx.array([PROMPT[:length]]), cache=cache))
    return cache


def _check_same(expected: Any, found: Any, complaint: str) -> None:
    worst: Any = mx.abs(expected - found).max().item()
    assert worst < TOLERANCE, f"{complaint}: logits differ by {worst:.2g}"
