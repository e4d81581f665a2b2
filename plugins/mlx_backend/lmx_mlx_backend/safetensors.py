"""The header of a safetensors file, read without trusting it.

Format: eight bytes with the length of a JSON object, that object, then the tensors' bytes without
a gap (https://github.com/huggingface/safetensors, section Format).
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from attrs import frozen

from lmx_kernel.errors import ModelUnusableError
from lmx_mlx_backend import strict_json

MAX_HEADER_BYTES = 1 << 24
"""Some 65,000 tensors; real files have a few thousand. The format itself allows 100 MB."""

BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8,
    "U16": 16, "I16": 16, "F16": 16, "BF16": 16, "U32": 32, "I32": 32, "F32": 32,
    "U64": 64, "I64": 64, "F64": 64,
}  # fmt: skip
"""Of one element, by the format's name of its type; no others are served."""


@frozen
class Tensor:
    """A tensor as the header tells of it."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        """The product of the shape."""
        return math.prod(self.shape)

    @property
    def size_bytes(self) -> int:
        """On disk."""
        return self.elements * BITS[self.dtype] // 8


def read_tensors(path: Path) -> tuple[Tensor, ...]:
    """Return the tensors of the file at ``path``.

    :raises ModelUnusableError: damaged; the message names the file.
    """
    try:
        return _read(path)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelUnusableError(f"{path.name}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        return error.strerror or "cannot be read"
    if type(error) is ValueError:
        return str(error)
    return "its header is damaged"


def _read(path: Path) -> tuple[Tensor, ...]:
    size_bytes = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(MAX_HEADER_BYTES, size_bytes - 8):
            raise ValueError("it is no safetensors file, or truncated in its header")
        entries = strict_json.parse(file.read(length))
    entries.pop("__metadata__", None)
    spans = sorted(_span(name, entry) for name, entry in entries.items())
    _check_spans(spans, size_bytes - 8 - length)
    return tuple(
        Tensor(name, entry["dtype"], tuple(entry["shape"])) for name, entry in entries.items()
    )


def _span(name: str, entry: dict[str, Any]) -> tuple[int, int, str]:
    """Return where a tensor begins and ends.

    :raises ValueError: its type is not served, or its shape does not fit its place.
    """
    if entry["dtype"] not in BITS:
        raise ValueError(f"tensor {name} is of the unknown type {entry['dtype']}")
    tensor = Tensor(name, entry["dtype"], tuple(entry["shape"]))
    place = entry["data_offsets"]
    numbers = (*tensor.shape, *place)
    if len(place) != 2 or not all(type(number) is int and number >= 0 for number in numbers):
        raise ValueError(f"the shape or the place of tensor {name} is not of natural numbers")
    begin, end = place
    if end - begin != tensor.size_bytes:
        raise ValueError(f"tensor {name} takes {end - begin} bytes, not {tensor.size_bytes}")
    return begin, end, name


def _check_spans(spans: list[tuple[int, int, str]], data_bytes: int) -> None:
    position = 0
    for begin, end, name in spans:
        if begin != position:
            raise ValueError(f"tensor {name} does not begin where the one before it ends")
        position = end
    if position > data_bytes:
        raise ValueError(f"it is truncated: {position - data_bytes} bytes are missing")
    if position < data_bytes:
        raise ValueError(f"{data_bytes - position} bytes at its end belong to no tensor")
