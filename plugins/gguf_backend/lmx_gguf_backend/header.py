"""The header of a GGUF file, read without trusting it.

Layout (all numbers little endian; the specification is ``docs/gguf.md`` of ggml-org/ggml): magic,
version, counts, then key/value pairs, then tensor infos, then padding, then the tensors' data.
Plain buffered reads, no memory map: a file that another process cuts short while it is read gives
a short read here, but would kill the process through a map.
"""

from __future__ import annotations

import hashlib
import os
import struct
from pathlib import Path
from typing import BinaryIO

from attrs import define, evolve, frozen

from lmx_kernel.errors import ModelUnusableError

MAX_PAIRS = 1 << 14
MAX_TENSORS = 1 << 16
MAX_DIMENSIONS = 4
MAX_NAME_BYTES = 1 << 12
MAX_STRINGS = 1 << 22
"""Strings in all arrays together: real vocabularies with merges stay below a million."""
KEPT_TEXT_BYTES = 1 << 12
KEPT_ELEMENTS = 1 << 10
"""Of an array: what there is one of for each layer."""
KEPT_ARRAYS_ELEMENTS = 1 << 16
"""Of all arrays together."""

VOCABULARY = "tokenizer.ggml.tokens"
PADDING = b"[PAD"
"""How the texts of tokens begin that pad a vocabulary to a round number, as converters write them:
https://github.com/ggml-org/llama.cpp/blob/master/convert_hf_to_gguf.py
"""

STRING, ARRAY = 8, 9
SCALARS = {
    0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i",
    6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d",
}  # fmt: skip


@frozen
class TensorType:
    """How a tensor's numbers are packed: ``block_bytes`` for every ``block`` of them."""

    name: str
    block: int
    block_bytes: int


TENSOR_TYPES = {
    number: TensorType(name, block, block_bytes)
    for number, name, block, block_bytes in (
        (0, "F32", 1, 4), (1, "F16", 1, 2), (2, "Q4_0", 32, 18), (3, "Q4_1", 32, 20),
        (6, "Q5_0", 32, 22), (7, "Q5_1", 32, 24), (8, "Q8_0", 32, 34), (10, "Q2_K", 256, 84),
        (11, "Q3_K", 256, 110), (12, "Q4_K", 256, 144), (13, "Q5_K", 256, 176),
        (14, "Q6_K", 256, 210), (16, "IQ2_XXS", 256, 66), (17, "IQ2_XS", 256, 74),
        (18, "IQ3_XXS", 256, 98), (19, "IQ1_S", 256, 50), (20, "IQ4_NL", 32, 18),
        (21, "IQ3_S", 256, 110), (22, "IQ2_S", 256, 82), (23, "IQ4_XS", 256, 136),
        (24, "I8", 1, 1), (25, "I16", 1, 2), (26, "I32", 1, 4), (27, "I64", 1, 8),
        (29, "IQ1_M", 256, 56), (30, "BF16", 1, 2), (34, "TQ1_0", 256, 54),
        (35, "TQ2_0", 256, 66), (39, "MXFP4", 32, 17), (40, "NVFP4", 64, 36),
        (41, "Q1_0", 128, 18), (42, "Q2_0", 64, 18),
    )
}  # fmt: skip
"""Types a weight may have, by their number in the file; F64 (28) is one that no kernel takes."""


@frozen
class ArrayInfo:
    """An array that was checked and skipped.

    :param digest: of the texts of a vocabulary, without those that pad its end; "" of others.
    """

    element_type: int
    length: int
    digest: str = ""


Value = int | float | bool | str | tuple[int | float | bool, ...] | ArrayInfo


@frozen
class Tensor:
    """A line of the tensor table. ``offset`` counts from the start of the data."""

    name: str
    shape: tuple[int, ...]
    type: TensorType
    offset: int

    @property
    def elements(self) -> int:
        """How many numbers it holds."""
        count = 1
        for size in self.shape:
            count *= size
        return count

    @property
    def size_bytes(self) -> int:
        """What it takes in the file, without padding."""
        return self.elements // self.type.block * self.type.block_bytes


@frozen
class Header:
    """What a GGUF file says of itself.

    :param metadata: its key/value pairs; long arrays only as :class:`ArrayInfo`, texts over
        ``KEPT_TEXT_BYTES`` cut there.
    """

    metadata: dict[str, Value]
    tensors: tuple[Tensor, ...]
    size_bytes: int


def read_header(path: Path) -> Header:
    """Return the header of the file at ``path``.

    Takes time and memory by what is in the file, never by what it claims.

    :raises ModelUnusableError: missing, truncated, or not a GGUF file that llama.cpp reads.
    """
    try:
        with path.open("rb", buffering=1 << 20) as file:
            return _Reader(file, path.name, os.fstat(file.fileno()).st_size).header()
    except OSError as error:
        reason = error.strerror or "unreadable"
        raise ModelUnusableError(f"{path.name}: cannot be read: {reason}") from error


@define
class _Reader:
    """Walks a file from front to back and refuses at the first thing that cannot be right."""

    file: BinaryIO
    name: str
    size: int
    at: int = 0
    strings: int = 0
    elements: int = 0
    texts: tuple[int, int] = (0, 0)

    def refusal(self, reason: str) -> ModelUnusableError:
        return ModelUnusableError(f"{self.name}: {reason}")

    def header(self) -> Header:
        if self.bytes(4) != b"GGUF":
            raise self.refusal("not a GGUF file")
        version = self.number("<I")
        if version not in (2, 3):
            raise self.refusal(f"GGUF version {version} is not supported (2 and 3 are)")
        tensors = self.count("tensors", MAX_TENSORS)
        metadata = self.pairs(self.count("metadata entries", MAX_PAIRS))
        table = tuple(self.tensor() for _ in range(tensors))
        self.check_layout(table, self.alignment(metadata))
        return Header(metadata, table, self.size)

    # --- primitives

    def bytes(self, length: int) -> bytes:
        self.advance(length)
        data = self.file.read(length)
        if len(data) != length:
            raise self.refusal("the file ends too early")
        return data

    def skip(self, length: int) -> None:
        self.advance(length)
        self.file.seek(length, os.SEEK_CUR)

    def advance(self, length: int) -> None:
        if length > self.size - self.at:
            raise self.refusal(f"the file ends too early (at {self.size:,} bytes)")
        self.at += length

    def number(self, form: str) -> int:
        return int(struct.unpack(form, self.bytes(struct.calcsize(form)))[0])

    def count(self, what: str, limit: int) -> int:
        count = self.number("<Q")
        if count > limit:
            raise self.refusal(f"claims {count:,} {what}")
        return count

    def text(self, limit: int | None = None) -> str:
        length = self.number("<Q")
        if limit is not None and length > limit:
            raise self.refusal(f"has a name of {length:,} bytes")
        kept = self.bytes(min(length, KEPT_TEXT_BYTES))
        self.skip(length - len(kept))
        return kept.decode("utf-8", errors="replace")

    # --- metadata

    def pairs(self, count: int) -> dict[str, Value]:
        metadata: dict[str, Value] = {}
        for _ in range(count):
            key = self.text(MAX_NAME_BYTES)
            if key in metadata:
                raise self.refusal("has a metadata key twice")
            metadata[key] = self.value(self.number("<I"))
            if key == VOCABULARY and isinstance(metadata[key], ArrayInfo):
                metadata[key] = evolve(metadata[key], digest=self.digest())
        return metadata

    def value(self, kind: int) -> Value:
        if kind == STRING:
            return self.text()
        if kind == ARRAY:
            return self.array(self.number("<I"), self.number("<Q"))
        return self.scalars(kind, 1)[0]

    def scalars(self, kind: int, count: int) -> tuple[int | float | bool, ...]:
        form = f"<{count}{self.form(kind)[1]}"
        return struct.unpack(form, self.bytes(struct.calcsize(form)))

    def form(self, kind: int) -> str:
        if kind not in SCALARS:
            raise self.refusal(f"has a value of the unknown type {kind}")
        return SCALARS[kind]

    def array(self, kind: int, length: int) -> Value:
        if kind == STRING:
            self.skip_strings(length)
        elif length <= min(KEPT_ELEMENTS, KEPT_ARRAYS_ELEMENTS - self.elements):
            self.elements += length
            return self.scalars(kind, length)
        else:
            self.skip(length * struct.calcsize(self.form(kind)))
        return ArrayInfo(kind, length)

    def digest(self) -> str:
        """Return the digest of the texts that were just skipped, without those that pad them."""
        start, end = self.texts
        end_of_array = self.file.tell()
        self.file.seek(start)
        digest = hashlib.blake2b(self.file.read(end - start), digest_size=16).hexdigest()
        self.file.seek(end_of_array)
        return digest

    def skip_strings(self, count: int) -> None:
        self.strings += count
        if self.strings > MAX_STRINGS or count * 8 > self.size - self.at:
            raise self.refusal(f"claims an array of {count:,} texts")
        read, at = self.file.read, self.at  # locals: a vocabulary has a quarter million of these
        start = end = at
        for _ in range(count):
            length = int.from_bytes(read(8), "little")
            at += 8 + length
            if at > self.size:
                raise self.refusal("a text in an array goes on past the end of the file")
            if length <= KEPT_TEXT_BYTES:
                if read(length)[: len(PADDING)] != PADDING:
                    end = at
            else:
                self.file.seek(length, os.SEEK_CUR)
        self.at, self.texts = at, (start, end)

    # --- tensors

    def tensor(self) -> Tensor:
        name = self.text(MAX_NAME_BYTES)
        dimensions = self.number("<I")
        if not 1 <= dimensions <= MAX_DIMENSIONS:
            raise self.refusal(f"a tensor has {dimensions:,} dimensions")
        shape = struct.unpack(f"<{dimensions}Q", self.bytes(8 * dimensions))
        number = self.number("<I")
        if number not in TENSOR_TYPES:
            raise self.refusal(f"a tensor has the unsupported type {number}")
        tensor = Tensor(name, shape, TENSOR_TYPES[number], self.number("<Q"))
        self.check_tensor(tensor)
        return tensor

    def check_tensor(self, tensor: Tensor) -> None:
        if min(tensor.shape) < 1 or tensor.elements >= 1 << 63:
            raise self.refusal("a tensor has an impossible shape")
        if tensor.shape[0] % tensor.type.block:
            raise self.refusal(f"a tensor's rows do not fit its type {tensor.type.name}")

    def alignment(self, metadata: dict[str, Value]) -> int:
        alignment = metadata.get("general.alignment", 32)
        if type(alignment) is not int or not 8 <= alignment <= 1 << 20 or alignment % 8:
            raise self.refusal("has an impossible general.alignment")
        return alignment

    def check_layout(self, tensors: tuple[Tensor, ...], alignment: int) -> None:
        """Tensors lie one after the other, each padded to the alignment, inside the file."""
        if len({tensor.name for tensor in tensors}) != len(tensors):
            raise self.refusal("has a tensor twice")
        start, expected = _padded(self.at, alignment), 0
        for tensor in tensors:
            if tensor.offset != expected:
                raise self.refusal("a tensor does not lie where the ones before it end")
            end = expected + tensor.size_bytes
            if start + end > self.size:
                raise self.refusal(f"the file ends too early: {self.size:,} bytes, tensors go on")
            expected = _padded(end, alignment)


def _padded(size: int, alignment: int) -> int:
    return -(-size // alignment) * alignment
