"""A GGUF model on disk: its shards, what their headers say, and whether llama.cpp may see them.

The checks of :func:`_check_model` are those whose absence let a damaged file abort or stall the
native library (361 mutations of a real file, each loaded in a process of its own).
"""

from __future__ import annotations

import math
import re
from pathlib import Path

from attrs import frozen

from lmx_gguf_backend.header import ArrayInfo, Header, Tensor, read_header
from lmx_kernel.errors import ModelUnusableError

MAX_LAYERS = 1024
MAX_WIDTH = 1 << 20
MAX_SHARDS = 1000
SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")

FILE_TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K",
    11: "Q3_K_S", 12: "Q3_K_M", 13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S",
    17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS", 20: "IQ2_XS", 21: "Q2_K_S", 22: "IQ3_XS",
    23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S",
    29: "IQ2_M", 30: "IQ4_XS", 31: "IQ1_M", 32: "BF16", 36: "TQ1_0", 37: "TQ2_0",
    38: "MXFP4", 39: "NVFP4", 40: "Q1_0", 41: "Q2_0",
}  # fmt: skip
"""Names of ``general.file_type``, as file names use them."""


@frozen
class ModelFile:
    """A model's headers, read and checked.

    :param path: the first shard, which is what llama.cpp opens.
    :param headers: one for each shard; the metadata is the first one's.
    """

    path: Path
    headers: tuple[Header, ...]

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """The tensors of all shards."""
        return tuple(tensor for header in self.headers for tensor in header.tensors)

    @property
    def size_bytes(self) -> int:
        """Of all shards on disk."""
        return sum(header.size_bytes for header in self.headers)

    @property
    def architecture(self) -> str:
        """Such as llama or gemma3."""
        return self.text("general.architecture") or "unknown"

    @property
    def quantization(self) -> str:
        """The name of the file's type, or that of the type most of its bytes have."""
        name = FILE_TYPES.get(self.integer("general.file_type", -1))
        return name or max(self._bytes_by_type().items(), key=lambda item: item[1])[0]

    def _bytes_by_type(self) -> dict[str, int]:
        sizes: dict[str, int] = {}
        for tensor in self.tensors:
            sizes[tensor.type.name] = sizes.get(tensor.type.name, 0) + tensor.size_bytes
        return sizes

    def text(self, key: str) -> str | None:
        """Return a text of the metadata, or None if there is none of that name."""
        value = self.headers[0].metadata.get(key)
        return value if isinstance(value, str) else None

    def integer(self, key: str, default: int = 0) -> int:
        """Return an integer of the metadata; of an array its largest element."""
        return max(self.integers(key), default=default)

    def integers(self, key: str) -> tuple[int, ...]:
        """Return the integers of an array of the metadata; a single one counts as an array."""
        value = self.headers[0].metadata.get(key, ())
        values = value if isinstance(value, tuple) else (value,)
        return tuple(v for v in values if type(v) is int)

    def flag(self, key: str, *, default: bool) -> bool:
        """Return a truth of the metadata."""
        value = self.headers[0].metadata.get(key)
        return value if isinstance(value, bool) else default

    def own(self, key: str) -> str:
        """Return a key's full name: hyperparameters carry their architecture's."""
        return f"{self.architecture}.{key}"

    @property
    def vocabulary(self) -> int:
        """Tokens in the vocabulary."""
        tokens = self.headers[0].metadata.get("tokenizer.ggml.tokens")
        return tokens.length if isinstance(tokens, ArrayInfo) else 0


def read_model(path: Path) -> ModelFile:
    """Return the model whose first (or only) shard is at ``path``, all its headers checked.

    :raises ModelUnusableError: a shard is missing, or native code must not see this file.
    """
    model = ModelFile(path, tuple(read_header(shard) for shard in shard_paths(path)))
    try:
        _check_shards(model)
        _check_model(model)
        for tensor in model.tensors:
            _check_weight(tensor)
    except ValueError as error:
        raise ModelUnusableError(f"{path.name}: {error}") from error
    return model


def is_model_name(name: str) -> bool:
    """Whether a file of this name is one that a model is loaded from."""
    shard = SHARD.fullmatch(name)
    return name.endswith(".gguf") and (shard is None or int(shard["number"]) == 1)


def shard_paths(path: Path) -> list[Path]:
    """Return the files of the model that ``path`` is, or is the first part of."""
    shard = SHARD.fullmatch(path.name)
    if shard is None:
        return [path]
    count = min(int(shard["count"]), MAX_SHARDS)
    return [path.with_name(f"{shard['stem']}-{i + 1:05}-of-{count:05}.gguf") for i in range(count)]


def _check_shards(model: ModelFile) -> None:
    count = model.integer("split.count", 1)
    if count != len(model.headers) and (count > 1 or len(model.headers) > 1):
        raise ValueError(f"is one of {count} parts, but its name says {len(model.headers)}")
    for number, header in enumerate(model.headers):
        if count > 1 and header.metadata.get("split.no") != number:
            raise ValueError(f"part {number + 1} is another part than its name says")
    names = [tensor.name for tensor in model.tensors]
    if len(set(names)) != len(names):
        raise ValueError("two parts hold the same tensor")
    if count > 1 and model.integer("split.tensors.count", -1) != len(names):
        raise ValueError("parts of different models lie together")


def _check_model(model: ModelFile) -> None:
    if not model.tensors:
        raise ValueError("holds no tensors")
    if model.text("general.architecture") is None:
        raise ValueError("does not name its architecture")
    for key, limit in (
        ("block_count", MAX_LAYERS),
        ("context_length", 1 << 31),
        ("embedding_length", MAX_WIDTH),
    ):
        _check_range(model, model.own(key), limit)
    if model.own("ssm.state_size") not in model.headers[0].metadata:
        _check_heads(model)
    for name in ("layer_norm_rms_epsilon", "layer_norm_epsilon"):
        _check_epsilon(model, model.own(f"attention.{name}"))
    if model.text("tokenizer.ggml.model") is None or not model.vocabulary:
        raise ValueError("holds no vocabulary")


def _check_range(model: ModelFile, key: str, limit: int) -> None:
    values = model.integers(key)
    if len(values) != 1:
        raise ValueError(f"does not say its {key}")
    if not 1 <= values[0] <= limit:
        raise ValueError(f"has an impossible {key}: {values[0]:,}")


def _check_heads(model: ModelFile) -> None:
    """Head counts divide the width; 0 may stand for layers without attention, not for all."""
    for key in ("attention.head_count", "attention.head_count_kv"):
        heads = model.integers(model.own(key))
        if heads and (max(heads) < 1 or min(heads) < 0 or max(heads) > MAX_WIDTH):
            raise ValueError(f"has an impossible {model.own(key)}")


def _check_epsilon(model: ModelFile, key: str) -> None:
    value = model.headers[0].metadata.get(key, 1e-5)
    if not isinstance(value, float) or not math.isfinite(value) or not 0 < value < 1:
        raise ValueError(f"has an impossible {key}")


def _check_weight(tensor: Tensor) -> None:
    """Norms and biases are multiplied or added as floats: a quantised one aborts at first use."""
    is_vector = len(tensor.shape) == 1 or "norm" in tensor.name
    if is_vector and tensor.type.block > 1:
        raise ValueError(f"a norm or bias has the quantised type {tensor.type.name}")
