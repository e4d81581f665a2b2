"""A GGUF file, opened to be converted."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from attrs import define, field
from gguf import GGUFReader, GGUFValueType, ReaderTensor

from lmx_kernel.errors import ModelUnusableError
from lmx_mlx_backend.convert.families import FAMILIES, ROOT, Family

FACTORS = "rope_freqs.weight"
"""The one tensor that is no weight: what llama-3 divides its rotary frequencies by."""
MAX_ELEMENTS = 1 << 22
"""Of an array in the metadata: real vocabularies with merges stay below a million."""
READER_FAULTS = (ValueError, KeyError, IndexError, OverflowError, MemoryError)
"""How ``GGUFReader`` (which checks little) answers a damaged file; texts that are no UTF-8 too."""


class _Reader(GGUFReader):
    """Does not spend hours on an array because a damaged file claims that it is long."""

    def _get_field_parts(self, orig_offs: int, raw_type: int) -> Any:
        if raw_type == GGUFValueType.ARRAY:  # the elements' type, then their number
            length = int(self._get(orig_offs + 4, np.uint64)[0])
            if length > MAX_ELEMENTS:
                raise ValueError(f"claims an array of {length:,}")
        return super()._get_field_parts(orig_offs, raw_type)


@define
class Source:
    """Metadata and tensors of one file. The tensors are views into a memory map.

    :ivar name: the file's, for messages.
    :ivar tensors: by GGUF's name; their shapes count as numpy's do, rows first.
    """

    name: str
    size_bytes: int
    reader: GGUFReader
    tensors: dict[str, ReaderTensor]
    _values: dict[str, Any] = field(factory=dict)

    @classmethod
    def open(cls, path: Path) -> Source:
        """Open the file at ``path`` and check that the whole model is in it.

        :raises ModelUnusableError: missing, damaged, in parts, or of no known family.
        """
        try:
            reader = _Reader(path)
            source = cls(
                path.name, path.stat().st_size, reader, {t.name: t for t in reader.tensors}
            )
        except OSError as error:
            reason = error.strerror or "unreadable"
            raise ModelUnusableError(f"{path.name}: cannot be read: {reason}") from error
        except READER_FAULTS as error:
            raise ModelUnusableError(f"{path.name}: not a whole GGUF file ({error})") from error
        source.check()
        return source

    def refuse(self, reason: str) -> NoReturn:
        """Give up.

        :raises ModelUnusableError: always.
        """
        raise ModelUnusableError(f"{self.name}: {reason}")

    # --- metadata

    def get(self, key: str, default: Any = None) -> Any:
        """Return a metadata value: a number, a text, a list; ``default`` if there is none.

        :raises ModelUnusableError: a text that is not UTF-8.
        """
        if key not in self._values:
            found = self.reader.get_field(key)
            try:
                self._values[key] = None if found is None else found.contents()
            except UnicodeDecodeError:
                self.refuse(f"{key} is not text in UTF-8")
        value = self._values[key]
        return default if value is None else value

    def own(self, key: str, default: Any = None) -> Any:
        """Return the value of a key that is prefixed with the architecture."""
        return self.get(f"{self.architecture}.{key}", default)

    def need(self, key: str, default: Any = None) -> Any:
        """Return the same of a key that must be there, and be one value for all layers.

        :raises ModelUnusableError: missing without a default, or differs between layers.
        """
        value = self.own(key, default)
        if value is None:
            self.refuse(f"has no {self.architecture}.{key}")
        if isinstance(value, list):
            if len(set(value)) != 1:
                self.refuse(f"{key} differs between layers")
            return value[0]
        return value

    @property
    def architecture(self) -> str:
        """GGUF's name of the model's architecture."""
        return str(self.get("general.architecture", ""))

    @property
    def family(self) -> Family:
        """How to convert it."""
        return FAMILIES[self.architecture]

    @property
    def heads(self) -> int:
        """How many heads ask in a layer's attention."""
        return int(self.need("attention.head_count"))

    @property
    def heads_kv(self) -> int:
        """How many heads answer."""
        return int(self.need("attention.head_count_kv", self.heads))

    # --- checks

    def check(self) -> None:
        """Check that the model is of a known family, and that no tensor is missing or unknown.

        A tensor that the family does not know would change what the model says, if dropped.

        :raises ModelUnusableError: otherwise.
        """
        if self.architecture not in FAMILIES:
            known = ", ".join(FAMILIES)
            self.refuse(f"cannot convert the architecture {self.architecture!r} (only {known})")
        if self.get("split.count", 0) > 1:
            self.refuse("is one of several parts; join them with `llama-gguf-split --merge` first")
        expected = self._expected()
        if unknown := self.tensors.keys() - expected - {FACTORS}:
            self.refuse(f"has a tensor that {self.architecture} does not: {min(unknown)}")
        if missing := expected - self.tensors.keys() - {"output.weight"}:
            self.refuse(f"has no tensor {min(missing)}")

    def _expected(self) -> set[str]:
        family = self.family
        block = [f"{name}.weight" for name in family.names]
        block += [f"{name}.bias" for name in family.biases]
        layers = range(self.need("block_count"))
        return {f"{name}.weight" for name in ROOT} | {
            f"blk.{layer}.{name}" for layer in layers for name in block
        }
