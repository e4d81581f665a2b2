"""Repacked tensors hold the file's numbers, bit for bit; the others say what they lost."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Kind
from gguf.constants import GGML_QUANT_SIZES
from gguf.quants import dequantize, quantize
from lmx_mlx_backend.convert import tensors
from lmx_mlx_backend.convert.tensors import (
    LAYOUTS,
    NotFiniteError,
    as_numbers,
    halves_of_pairs,
    pack_codes,
    repack,
)

F16, F32 = np.dtype(np.float16), np.dtype(np.float32)
SHAPE = (6, 512)


def random_blocks(kind: Kind, shape: tuple[int, ...] = SHAPE, seed: int = 1) -> np.ndarray:
    """Return data of a type: of normal numbers where gguf can quantise, else of random bytes."""
    dice = np.random.default_rng(seed)
    try:
        return quantize(dice.normal(0, 2, shape).astype(np.float32), kind)
    except NotImplementedError:
        return random_bytes(kind, shape, dice)


def random_bytes(kind: Kind, shape: tuple[int, ...], dice: np.random.Generator) -> np.ndarray:
    """Return blocks of random bits; only the float16 scales are kept finite."""
    block, size = GGML_QUANT_SIZES[kind]
    data = dice.integers(0, 256, (*shape[:-1], shape[-1] // block, size), np.uint8)
    scales = dice.normal(0, 0.01, (*data.shape[:-1], 2)).astype(np.float16).view(np.uint8)
    place = {Kind.Q6_K: slice(208, 210), Kind.Q3_K: slice(108, 110), Kind.Q2_K: slice(80, 84)}
    at = place.get(kind, slice(0, 4))
    data[..., at] = scales[..., : at.stop - at.start]
    return data.reshape(*shape[:-1], -1)


def as_mlx(stored: tensors.Stored) -> np.ndarray:
    """Return what MLX makes of a packed tensor, computed in float32."""
    parts = {name: mx.array(array) for name, array in stored.parts.items()}
    scales, biases = (parts[name].astype(mx.float32) for name in ("scales", "biases"))
    return np.array(mx.dequantize(parts["weight"], scales, biases, 32, stored.bits))


@pytest.mark.parametrize("number", [F16, F32])
@pytest.mark.parametrize("kind", LAYOUTS)
def test_packed_types_are_bit_equal(kind: Kind, number: np.dtype) -> None:
    data = random_blocks(kind)
    stored = repack(data, kind, number)
    assert np.array_equal(as_mlx(stored), dequantize(data, kind))
    is_wide = number is F32 or kind in (Kind.Q4_K, Kind.Q5_K)
    assert stored.parts["scales"].dtype == (F32 if is_wide else F16)
    assert stored.parts["weight"].shape == (6, 512 * LAYOUTS[kind].bits // 32)


@pytest.mark.parametrize("kind", LAYOUTS)
def test_any_bits_are_bit_equal(kind: Kind) -> None:
    """Also blocks that no quantiser writes: every code, scale and sign."""
    data = random_bytes(kind, (64, 1024), np.random.default_rng(2))
    assert np.array_equal(as_mlx(repack(data, kind, F16)), dequantize(data, kind))


def test_experts_keep_their_shape() -> None:
    data = random_blocks(Kind.Q5_0, (3, 4, 64))
    stored = repack(data, Kind.Q5_0, F16)
    assert [part.shape for part in stored.parts.values()] == [(3, 4, 10), (3, 4, 2), (3, 4, 2)]
    assert np.array_equal(as_mlx(stored), dequantize(data, Kind.Q5_0))


def test_chunks_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    data = random_blocks(Kind.Q4_K)
    whole = repack(data, Kind.Q4_K, F32), as_numbers(data, Kind.Q4_K, F16)
    monkeypatch.setattr(tensors, "CHUNK_BYTES", 1000)
    parts = repack(data, Kind.Q4_K, F32), as_numbers(data, Kind.Q4_K, F16)
    for a, b in zip(whole, parts, strict=True):
        assert all(np.array_equal(a.parts[name], b.parts[name]) for name in a.parts)
        assert (a.max_error, a.rms_error) == pytest.approx((b.max_error, b.rms_error))


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
def test_codes_are_packed_as_mlx_does(bits: int) -> None:
    numbers = mx.random.normal((8, 64), key=mx.random.key(1))
    packed, scales, biases = mx.quantize(numbers, 32, bits)
    groups = np.array(mx.dequantize(packed, scales, biases, 32, bits)).reshape(8, 2, 32)
    near = (groups - np.array(biases)[..., None]) / np.array(scales)[..., None]
    codes = np.round(near).astype(np.uint8).reshape(8, 64)
    assert np.array_equal(pack_codes(codes, bits), np.array(packed))


def test_a_scale_that_float16_cannot_hold_stays_float32() -> None:
    data = random_blocks(Kind.Q8_0)
    data[0, :2] = np.array([1000], np.float16).view(np.uint8)  # times -128 is the bias
    stored = repack(data, Kind.Q8_0, F16)
    assert stored.parts["biases"].dtype == F32
    assert np.array_equal(as_mlx(stored), dequantize(data, Kind.Q8_0))


@pytest.mark.parametrize("kind", [Kind.Q6_K, Kind.Q3_K, Kind.Q2_K, Kind.IQ4_NL, Kind.BF16])
def test_other_types_become_numbers(kind: Kind) -> None:
    data = random_blocks(kind)
    exact = dequantize(data, kind)
    full = as_numbers(data, kind, F32)
    assert np.array_equal(full.parts["weight"], exact)
    assert (full.bits, full.max_error, full.rms_error) == (None, 0, 0)
    half = as_numbers(data, kind, F16)
    error = half.parts["weight"].astype(np.float32) - exact
    assert half.max_error == np.abs(error).max()
    assert half.rms_error == pytest.approx(np.sqrt((error**2).mean() / (exact**2).mean()), rel=1e-4)
    assert 0 <= half.rms_error < 3e-4


def test_numbers_too_large_for_float16_stay_float32() -> None:
    data = np.array([[1.0, 1e6]], np.float32)
    stored = as_numbers(data, Kind.F32, F16)
    assert stored.parts["weight"].dtype == F32
    assert stored.max_error == 0


def test_the_offset_of_norms() -> None:
    data = np.random.default_rng(1).normal(1, 0.3, 64).astype(np.float32)
    stored = as_numbers(data, Kind.F32, F16, offset=1.0)
    weight = stored.parts["weight"]
    assert weight.shape == (64,)
    assert np.allclose(weight, data - 1, atol=1e-3)
    error = np.abs(weight.astype(np.float32) + np.float32(1) - data).max()
    assert 0 < error == stored.max_error


def test_rows_of_pairs() -> None:
    """Two heads of six rows: neighbours 0 1, 2 3, 4 5 become the first and the second half."""
    data = np.arange(24).reshape(12, 2)
    rows = halves_of_pairs(data, heads=2)[:, 0] // 2
    assert rows.tolist() == [0, 2, 4, 1, 3, 5, 6, 8, 10, 7, 9, 11]


@pytest.mark.parametrize("kind", [Kind.Q4_0, Kind.Q4_K, Kind.Q6_K, Kind.F32])
def test_not_finite(kind: Kind) -> None:
    data = random_blocks(kind).copy()
    if kind is Kind.F32:
        data[0, 0] = np.nan
    else:
        place = slice(208, 210) if kind is Kind.Q6_K else slice(0, 2)
        data[0, place] = np.array([np.inf], np.float16).view(np.uint8)
    with pytest.raises(NotFiniteError), np.errstate(invalid="ignore"):
        as_numbers(data, kind, F32) if kind not in LAYOUTS else repack(data, kind, F32)
