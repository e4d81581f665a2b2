"""A GGUF tensor as MLX stores it: repacked without loss where MLX has the form, else as numbers.

MLX's affine form (``mx.quantize``): groups of 32 along a row, each number = code * scale + bias;
a row's codes are one little-endian stream of bits, cut into uint32. GGUF's blocks say the same
numbers in another order (``ggml-common.h`` and the reference code in ``ggml-quants.c`` of
ggml-org/llama.cpp), as long as their groups are 32 wide too: those of Q2_K, Q3_K, Q6_K are 16.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from attrs import field, frozen
from gguf import GGMLQuantizationType as Kind
from gguf.quants import dequantize
from numpy.typing import NDArray

GROUP = 32
CHUNK_BYTES = 1 << 24
"""What is unpacked at a time: bounds the memory that a large tensor takes on its way."""

Array = NDArray[Any]
Blocks = NDArray[np.uint8]
Unpacked = tuple[Array, Array, Array]
"""Of n blocks: codes (n, block) uint8; scales and biases (n, block / 32) float32."""


class NotFiniteError(ValueError):
    """A tensor holds NaN or infinity."""


@frozen
class Stored:
    """What became of a tensor.

    :ivar parts: by suffix: ``weight`` alone, or with ``scales`` and ``biases``.
    :ivar bits: of a code, None when it was not packed.
    :ivar max_error: the largest difference to the file's number.
    :ivar rms_error: the root mean square of the differences, relative to the numbers'.
    """

    parts: Mapping[str, Array]
    bits: int | None = None
    max_error: float = 0.0
    rms_error: float = 0.0
    size_bytes: int = field(init=False)

    @size_bytes.default
    def _sum(self) -> int:
        return sum(part.nbytes for part in self.parts.values())


# --- GGUF's blocks, as rows of bytes


def _half(data: Blocks) -> Array:
    """Return float16 numbers (n, 2k bytes) as float32 (n, k)."""
    return np.ascontiguousarray(data).view("<f2").astype(np.float32)


def _nibbles(data: Blocks, run: int) -> Array:
    """Return the low halves of ``run`` bytes, then their high ones, and so on: (n, 2 * bytes)."""
    halves = data.reshape(len(data), -1, 1, run) >> np.array([[0], [4]], np.uint8)
    return (halves & 15).reshape(len(data), -1)


def _fifth_bits(data: Blocks) -> Array:
    """Return bit k of each of 32 bytes as codes 32k to 32k + 31, in place 4: (n, 256)."""
    bits = np.unpackbits(data[..., None], axis=-1, bitorder="little")
    return bits.swapaxes(1, 2).reshape(len(data), -1) << 4


def _six_bits(data: Blocks) -> tuple[Blocks, Blocks]:
    """Return the 8 scales and 8 minima of a K block, 6 bits each in 12 bytes."""
    scales, minima, rest = data[:, :4], data[:, 4:8], data[:, 8:]
    upper = ((rest & 15) | scales >> 6 << 4, (rest >> 4) | minima >> 6 << 4)
    return np.hstack([scales & 63, upper[0]]), np.hstack([minima & 63, upper[1]])


def _q4_0(data: Blocks) -> Unpacked:
    scale = _half(data[:, :2])
    return _nibbles(data[:, 2:], 16), scale, -8 * scale


def _q4_1(data: Blocks) -> Unpacked:
    return _nibbles(data[:, 4:], 16), _half(data[:, :2]), _half(data[:, 2:4])


def _q5_0(data: Blocks) -> Unpacked:
    scale = _half(data[:, :2])
    high = np.unpackbits(data[:, 2:6], axis=1, bitorder="little") << 4
    return _nibbles(data[:, 6:], 16) | high, scale, -16 * scale


def _q5_1(data: Blocks) -> Unpacked:
    high = np.unpackbits(data[:, 4:8], axis=1, bitorder="little") << 4
    return _nibbles(data[:, 8:], 16) | high, _half(data[:, :2]), _half(data[:, 2:4])


def _q8_0(data: Blocks) -> Unpacked:
    scale = _half(data[:, :2])
    return data[:, 2:] ^ 0x80, scale, -128 * scale  # int8 + 128 flips the sign bit


def _k_groups(data: Blocks) -> tuple[Array, Array]:
    scales, minima = _six_bits(data[:, 4:16])
    return _half(data[:, :2]) * scales, -_half(data[:, 2:4]) * minima


def _q4_k(data: Blocks) -> Unpacked:
    return _nibbles(data[:, 16:], 32), *_k_groups(data)


def _q5_k(data: Blocks) -> Unpacked:
    return _nibbles(data[:, 48:], 32) | _fifth_bits(data[:, 16:48]), *_k_groups(data)


@frozen
class Layout:
    """How the blocks of one type are unpacked."""

    bits: int
    block_bytes: int
    unpack: Callable[[Blocks], Unpacked]


LAYOUTS = {
    Kind.Q4_0: Layout(4, 18, _q4_0),
    Kind.Q4_1: Layout(4, 20, _q4_1),
    Kind.Q5_0: Layout(5, 22, _q5_0),
    Kind.Q5_1: Layout(5, 24, _q5_1),
    Kind.Q8_0: Layout(8, 34, _q8_0),
    Kind.Q4_K: Layout(4, 144, _q4_k),
    Kind.Q5_K: Layout(5, 176, _q5_k),
}
"""The types that MLX can hold as they are."""


# --- MLX's forms


def pack_codes(codes: Blocks, bits: int) -> Array:
    """Return codes (rows, columns) as MLX's stream: uint32 (rows, columns * bits / 32).

    Eight codes fill ``bits`` whole bytes, so they go through one 64-bit word.
    """
    eights = codes.reshape(-1, 8)
    words = np.zeros(len(eights), "<u8")
    for place in range(8):
        words |= eights[:, place].astype("<u8") << np.uint64(place * bits)
    stream = words.view(np.uint8).reshape(-1, 8)[:, :bits]
    return np.ascontiguousarray(stream).reshape(len(codes), -1).view("<u4")


def repack(data: Blocks, kind: Kind, number: np.dtype[Any]) -> Stored:
    """Return a tensor of one of the ``LAYOUTS`` in MLX's affine form.

    :param data: (..., bytes of a row).
    :param number: the scales' and biases' type, where it holds them exactly; else float32.
    :raises NotFiniteError: a scale is NaN or infinite.
    """
    layout = LAYOUTS[kind]
    parts = [_repack_rows(rows, layout) for rows in _chunks(data.reshape(-1, data.shape[-1]))]
    weight, scales, biases = map(np.concatenate, zip(*parts, strict=True))
    if not (np.isfinite(scales).all() and np.isfinite(biases).all()):
        raise NotFiniteError
    if _is_exact(scales, number) and _is_exact(biases, number):
        scales, biases = scales.astype(number), biases.astype(number)
    outer = data.shape[:-1]
    named = {"weight": weight, "scales": scales, "biases": biases}
    return Stored({name: a.reshape(*outer, -1) for name, a in named.items()}, layout.bits)


def _repack_rows(rows: Blocks, layout: Layout) -> tuple[Array, Array, Array]:
    codes, *groups = layout.unpack(rows.reshape(-1, layout.block_bytes))
    weight = pack_codes(codes.reshape(len(rows), -1), layout.bits)
    scales, biases = (group.reshape(len(rows), -1) for group in groups)
    return weight, scales, biases


def as_numbers(data: Array, kind: Kind, number: np.dtype[Any], offset: float = 0.0) -> Stored:
    """Return any tensor as plain numbers, and how far they are from the file's.

    :param number: their type; float32 instead if one is too large for it.
    :param offset: taken off every number; what reads them adds it again.
    :raises NotFiniteError: a number is NaN or infinite.
    """
    shape = (*data.shape[:-1], -1)
    rows = data.reshape(-1, data.shape[-1])
    parts, largest, squares, total = [], 0.0, 0.0, 0.0
    for chunk in _chunks(rows):
        exact = dequantize(chunk, kind)
        if not np.isfinite(exact).all():
            raise NotFiniteError
        part = _cast(exact - np.float32(offset) if offset else exact, number)
        error = part.astype(np.float32) + np.float32(offset) - exact
        largest = max(largest, float(np.abs(error).max()))
        squares += float(np.square(error, dtype=np.float64).sum())
        total += float(np.square(exact, dtype=np.float64).sum())
        parts.append(part)
    if not all(np.isfinite(part).all() for part in parts):
        return as_numbers(data, kind, np.dtype(np.float32), offset)
    relative = (squares / total) ** 0.5 if total else 0.0
    weight = np.concatenate(parts).reshape(shape)
    return Stored({"weight": weight}, None, largest, relative)


def halves_of_pairs(data: Array, heads: int) -> Array:
    """Return rows that lie in pairs (heads, size / 2, 2) in halves (heads, 2, size / 2).

    llama.cpp's "norm" rotary turns neighbours, mlx-lm's turns the halves of a head. Quantisation
    stays within a row, so this moves rows of bytes and is exact for every type.
    """
    return data.reshape(heads, -1, 2, *data.shape[1:]).swapaxes(1, 2).reshape(data.shape)


def _chunks(rows: Array) -> Iterator[Array]:
    count = max(1, CHUNK_BYTES // rows[0].nbytes)
    return (rows[start : start + count] for start in range(0, len(rows), count))


def _cast(numbers: Array, number: np.dtype[Any]) -> Array:
    with np.errstate(over="ignore"):  # to infinity, which the callers look for
        return numbers.astype(number)


def _is_exact(numbers: Array, number: np.dtype[Any]) -> bool:
    return bool(np.array_equal(_cast(numbers, number).astype(np.float32), numbers))
