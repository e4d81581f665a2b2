"""One check for a new model architecture: what serving needs of it, tried with random weights."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any

import mlx.core as mx

from lmx_mlx_backend import caches
from lmx_mlx_backend.batch_check import check_batch

PROMPT = (3, 1, 4, 1, 5, 9, 2, 6)
TOLERANCE = 1e-3  # float32; what differs more is a fault, not rounding


def check_architecture(module: ModuleType, config: Mapping[str, Any]) -> None:
    """Build ``module.Model`` from ``config`` with random weights and try all that serving needs.

    :param module: has ``Model`` and ``ModelArgs``.
    :param config: as in config.json, made small; the vocabulary has at least ten tokens.
    :raises AssertionError: says what serving it would break.
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
    _check_batch(model)


def _logits(model: Any, rows: list[Any]) -> Any:
    return model(mx.array(rows))


def _in_pieces(model: Any, lengths: tuple[int, ...]) -> Any:
    cache, start, pieces = caches.new(model), 0, []
    for length in lengths:
        piece = mx.array([PROMPT[start : start + length]])
        pieces.append(model(piece, cache=cache))
        start += length
    return mx.concatenate(pieces, axis=1)


def _check_batch(model: Any) -> None:
    """Let rows share a batch; models whose caches cannot merge are served one by one."""
    if not all(hasattr(layer, "merge") for layer in caches.new(model)):
        return
    try:
        for lengths in ((1, 3, 2), (3, 7, 5)):
            check_batch(model, lengths)
    except ValueError as error:
        raise AssertionError(str(error)) from error


def _check_same(expected: Any, found: Any, complaint: str) -> None:
    worst: Any = mx.abs(expected - found).max().item()
    assert worst < TOLERANCE, f"{complaint}: logits differ by {worst:.2g}"
