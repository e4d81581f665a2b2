"""A GGUF model on disk: its shards, what their headers say, and whether llama.cpp may see them.

The checks of :func:`_check_model` are those whose absence let a damaged file abort or stall the
native library (361 mutations of a real file, each loaded in a process of its own).
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from attrs import evolve, frozen

from lmx_gguf_backend.header import VOCABULARY, ArrayInfo, Header, Tensor, Value, read_header
from lmx_kernel.errors import ModelUnusableError
from lmx_kernel.models.maker_sampling import maker_sampling
from lmx_kernel.models.templates import capabilities_of
from lmx_kernel.types import SamplingRequest

MAX_LAYERS = 1024
MAX_WIDTH = 1 << 20
MAX_SHARDS = 1000
SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")

TEMPLATE = "tokenizer.chat_template"
TOKENIZER = "tokenizer.ggml.model"
USED_KEYS = ("general.architecture", "general.file_type", TOKENIZER, VOCABULARY)
COMPANION_TYPES = ("adapter", "imatrix", "mmproj", "vocab")
"""Values of ``general.type`` of files that are no models of their own."""
COMPANION_ARCHITECTURES = ("clip", "controlvector")
"""Projectors of images and sound (without a type in older files), and directions to steer by."""
CAPABILITIES = "lmx.capabilities"  # told from the template, which may be long
SAMPLING_KEYS = {
    "general.sampling.temp": "temperature",
    "general.sampling.top_k": "top_k",
    "general.sampling.top_p": "top_p",
    "general.sampling.min_p": "min_p",
    "general.sampling.penalty_repeat": "repetition_penalty",
}
"""Keys of sampling as its maker wants it, with our names for them. The names are those of the
``gguf`` package: https://github.com/ggml-org/llama.cpp/blob/master/gguf-py/gguf/constants.py
"""

OWN_KEYS = (
    *("block_count", "context_length", "embedding_length", "feed_forward_length", "pooling_type"),
    *("attention.causal", "attention.head_count", "attention.head_count_kv"),
    *("attention.key_length", "attention.value_length"),
    *("ssm.conv_kernel", "ssm.inner_size", "ssm.state_size"),
)
"""Keys that carry the architecture's name before them."""

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
    """What is used of a model's headers, after they were checked.

    :param path: the first shard, which is what llama.cpp opens.
    :param metadata: the first shard's.
    :param size_bytes: of all shards on disk.
    :param weights: the bytes of all tensors, by the name of their type.
    :param is_companion: it belongs to a model, but is none; nothing else of it was checked.
    """

    path: Path
    metadata: dict[str, Value]
    size_bytes: int
    weights: dict[str, int]
    is_companion: bool = False

    @property
    def weights_bytes(self) -> int:
        """Of all tensors."""
        return sum(self.weights.values())

    @property
    def architecture(self) -> str:
        """Such as llama or gemma3."""
        return self.text("general.architecture") or "unknown"

    @property
    def quantization(self) -> str:
        """The name of the file's type, or that of the type most of its bytes have."""
        name = FILE_TYPES.get(self.integer("general.file_type", -1))
        return name or max(self.weights.items(), key=lambda item: item[1])[0]

    def text(self, key: str) -> str | None:
        """Return a text of the metadata, or None if there is none of that name."""
        value = self.metadata.get(key)
        return value if isinstance(value, str) else None

    def integer(self, key: str, default: int = 0) -> int:
        """Return an integer of the metadata; of an array its largest element."""
        return max(self.integers(key), default=default)

    def integers(self, key: str) -> tuple[int, ...]:
        """Return the integers of an array of the metadata; a single one counts as an array."""
        value = self.metadata.get(key, ())
        values = value if isinstance(value, tuple) else (value,)
        return tuple(v for v in values if type(v) is int)

    def flag(self, key: str, *, default: bool) -> bool:
        """Return a truth of the metadata."""
        value = self.metadata.get(key)
        return value if isinstance(value, bool) else default

    def own(self, key: str) -> str:
        """Return a key's full name: hyperparameters carry their architecture's."""
        return f"{self.architecture}.{key}"

    @property
    def sampling(self) -> SamplingRequest:
        """As the model's maker wants it."""
        found = {name: self.metadata.get(key) for key, name in SAMPLING_KEYS.items()}
        return maker_sampling(found)

    @property
    def vocabulary(self) -> int:
        """Tokens in the vocabulary."""
        tokens = self.metadata.get(VOCABULARY)
        return tokens.length if isinstance(tokens, ArrayInfo) else 0

    @property
    def vocabulary_digest(self) -> str:
        """The same for models whose tokens have the same bytes: these follow from the texts in the
        file and the kind of tokenizer.
        """
        tokens = self.metadata.get(VOCABULARY)
        digest = tokens.digest if isinstance(tokens, ArrayInfo) else ""
        return f"{self.text(TOKENIZER)} {digest}"


def read_model(path: Path) -> ModelFile:
    """Return the model whose first (or only) shard is at ``path``, all its headers checked.

    :raises ModelUnusableError: a shard is missing, or native code must not see this file.
    """
    headers = [read_header(shard) for shard in shard_paths(path)]
    tensors = [tensor for header in headers for tensor in header.tensors]
    weights: Counter[str] = Counter()
    for tensor in tensors:
        weights[tensor.type.name] += tensor.size_bytes
    size_bytes = sum(header.size_bytes for header in headers)
    model = ModelFile(path, headers[0].metadata, size_bytes, dict(weights))
    if _is_companion(model):
        return evolve(model, metadata={}, is_companion=True)
    try:
        _check_shards(model, headers)
        _check_model(model)
        for tensor in tensors:
            _check_weight(tensor)
    except ValueError as error:
        raise ModelUnusableError(f"{path.name}: {error}") from error
    return evolve(model, metadata=_used(model))


def _is_companion(model: ModelFile) -> bool:
    """Return whether the header says that a file is a projector or the like, or a further part of a
    model under a name that does not tell so.
    """
    is_part = SHARD.fullmatch(model.path.name) is None and model.integer("split.no") > 0
    is_other = model.text("general.type") in COMPANION_TYPES
    return is_part or is_other or model.architecture in COMPANION_ARCHITECTURES


def _used(model: ModelFile) -> dict[str, Value]:
    """Return the part of the metadata that is used after the checks."""
    keys = (*USED_KEYS, *SAMPLING_KEYS, *map(model.own, OWN_KEYS))
    used = {key: model.metadata[key] for key in keys if key in model.metadata}
    used[CAPABILITIES] = " ".join(sorted(capabilities_of(model.text(TEMPLATE))))
    return used


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


def _check_shards(model: ModelFile, headers: Sequence[Header]) -> None:
    count = model.integer("split.count", 1)
    if count != len(headers) and (count > 1 or len(headers) > 1):
        raise ValueError(f"is one of {count} parts, but its name says {len(headers)}")
    for number, header in enumerate(headers):
        if count > 1 and header.metadata.get("split.no") != number:
            raise ValueError(f"part {number + 1} is another part than its name says")
    names = [tensor.name for header in headers for tensor in header.tensors]
    if len(set(names)) != len(names):
        raise ValueError("two parts hold the same tensor")
    if count > 1 and model.integer("split.tensors.count", -1) != len(names):
        raise ValueError("parts of different models lie together")


def _check_model(model: ModelFile) -> None:
    if not model.weights:
        raise ValueError("holds no tensors")
    if model.text("general.architecture") is None:
        raise ValueError("does not name its architecture")
    for key, limit in (
        ("block_count", MAX_LAYERS),
        ("context_length", 1 << 31),
        ("embedding_length", MAX_WIDTH),
    ):
        _check_range(model, model.own(key), limit)
    if model.own("ssm.state_size") not in model.metadata:
        _check_heads(model)
    for name in ("layer_norm_rms_epsilon", "layer_norm_epsilon"):
        _check_epsilon(model, model.own(f"attention.{name}"))
    if model.text(TOKENIZER) is None or not model.vocabulary:
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
    value = model.metadata.get(key, 1e-5)
    if not isinstance(value, float) or not math.isfinite(value) or not 0 < value < 1:
        raise ValueError(f"has an impossible {key}")


def _check_weight(tensor: Tensor) -> None:
    """Norms and biases are multiplied or added as floats: a quantised one aborts at first use."""
    is_vector = len(tensor.shape) == 1 or "norm" in tensor.name
    if is_vector and tensor.type.block > 1:
        raise ValueError(f"a norm or bias has the quantised type {tensor.type.name}")
