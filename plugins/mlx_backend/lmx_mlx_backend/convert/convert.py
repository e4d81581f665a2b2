"""``convert``: one GGUF file to one MLX folder."""

from __future__ import annotations

import json
import os
import platform
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType as Kind
from gguf import ReaderTensor

from lmx_kernel.errors import ModelUnusableError
from lmx_mlx_backend.convert.config import config, head_size, quantization
from lmx_mlx_backend.convert.families import ROOT
from lmx_mlx_backend.convert.report import Cost, Report
from lmx_mlx_backend.convert.shards import ShardWriter
from lmx_mlx_backend.convert.source import FACTORS, Source
from lmx_mlx_backend.convert.tensors import (
    LAYOUTS,
    NotFiniteError,
    Stored,
    as_numbers,
    halves_of_pairs,
    repack,
)
from lmx_mlx_backend.convert.tokenizer import tokenizer, tokenizer_config

Progress = Callable[[int, int], None]
"""Called with the bytes of the file that are done, and those of all tensors."""


class Number(StrEnum):
    """The type of all numbers but the packed ones: scales, norms, what has no packed form.

    On a CPU, MLX computes in float32 many times faster than in float16; Metal wants float16.
    """

    AUTO = "auto"
    FLOAT16 = "float16"
    FLOAT32 = "float32"

    @property
    def dtype(self) -> np.dtype[Any]:
        """numpy's; AUTO is float16 on macOS and float32 elsewhere."""
        if self is Number.AUTO:
            return (Number.FLOAT16 if platform.system() == "Darwin" else Number.FLOAT32).dtype
        return np.dtype(self.value)


def convert(
    path: Path,
    target: Path,
    *,
    number: Number = Number.AUTO,
    is_plain: bool = False,
    progress: Progress = lambda done, total: None,
) -> Report:
    """Write the model in the GGUF file at ``path`` as a new MLX folder ``target``.

    The folder appears whole or not at all.

    :param number: see :class:`Number`. Scales that float16 cannot hold exactly stay float32.
    :param is_plain: pack nothing: larger, and faster on a CPU.
    :raises ModelUnusableError: the target exists; or the file is missing, damaged, or holds a model
        of a family, or with a feature, that is not known.
    :raises OSError: the folder cannot be written.
    """
    with _appearing(target) as folder:
        source = Source.open(path)
        described = config(source)
        tokenizer(source).save(str(folder / "tokenizer.json"))
        _write_json(folder / "tokenizer_config.json", tokenizer_config(source))
        shards = ShardWriter(folder)
        bits, costs = _write_weights(source, shards, number.dtype, is_plain, progress)
        _write_json(folder / "config.json", described | quantization(bits))
    return Report(
        target=target,
        architecture=source.architecture,
        tensors=len(source.tensors),
        costs=costs,
        size_before=sum(int(tensor.n_bytes) for tensor in source.tensors.values()),
        size_after=shards.size_bytes,
    )


@contextmanager
def _appearing(target: Path) -> Iterator[Path]:
    """Give a hidden folder beside ``target``, which takes its name if nothing goes wrong."""
    if target.exists():
        raise ModelUnusableError(f"{target.name} exists already")
    folder = target.with_name(f".{target.name}.{os.getpid()}.part")
    new = [parent for parent in folder.parents if not parent.exists()]
    try:
        folder.mkdir(parents=True)
        yield folder
        folder.rename(target)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        for parent in new:
            with suppress(OSError):  # never made, or in use by someone else
                parent.rmdir()
        raise


def _write_weights(
    source: Source, shards: ShardWriter, number: np.dtype[Any], is_plain: bool, progress: Progress
) -> tuple[dict[str, int], tuple[Cost, ...]]:
    """Write all tensors; return the packed modules' bits, and what is not as it was."""
    bits, costs, done = {}, [], 0
    tensors = [tensor for tensor in source.tensors.values() if tensor.name != FACTORS]
    total = sum(int(tensor.n_bytes) for tensor in tensors)
    for tensor in tensors:
        module, suffix = _place(source, tensor.name)
        stored = _stored(source, tensor, module, number, is_plain)
        for part, array in stored.parts.items():
            shards.add(f"{module}.{suffix if part == 'weight' else part}", array)
        if stored.bits:
            bits[module] = stored.bits
        elif cost := _cost(tensor, stored):
            costs.append(cost)
        done += int(tensor.n_bytes)
        progress(done, total)
    shards.finish()
    return bits, tuple(costs)


def _place(source: Source, name: str) -> tuple[str, str]:
    """Return mlx-lm's module and parameter of a tensor that the family knows."""
    stem, suffix = name.rsplit(".", 1)
    if stem in ROOT:
        return ROOT[stem], suffix
    _, layer, part = stem.split(".")
    return f"model.layers.{layer}.{source.family.names[part]}", suffix


def _stored(
    source: Source, tensor: ReaderTensor, module: str, number: np.dtype[Any], is_plain: bool
) -> Stored:
    kind, data = tensor.tensor_type, tensor.data
    offset = source.family.norm_offset if module.endswith("norm") else 0.0
    if heads := _paired_heads(source, module):
        if len(data) != heads * head_size(source):
            source.refuse(f"{tensor.name} has {len(data)} rows, which do not make {heads} heads")
        data = halves_of_pairs(data, heads)
    try:
        if kind in LAYOUTS and not is_plain:
            return repack(data, kind, number)
        return as_numbers(data, kind, number, offset)
    except NotFiniteError:
        source.refuse(f"{tensor.name} holds numbers that are not finite")
    except NotImplementedError:
        source.refuse(f"{tensor.name} is of a type that cannot be read ({kind.name})")


def _paired_heads(source: Source, module: str) -> int:
    """Return the heads of a q or k whose rows lie in pairs, 0 for all other tensors."""
    if not source.family.has_paired_rows or not module.endswith(("q_proj", "k_proj")):
        return 0
    return source.heads if module.endswith("q_proj") else source.heads_kv


def _cost(tensor: ReaderTensor, stored: Stored) -> Cost | None:
    kind = tensor.tensor_type
    if kind in (Kind.F32, Kind.F16, Kind.BF16) and not stored.max_error:
        return None
    return Cost(
        name=tensor.name,
        source=kind.name,
        stored=stored.parts["weight"].dtype.name,
        size_before=int(tensor.n_bytes),
        size_after=stored.size_bytes,
        max_error=stored.max_error,
        rms_error=stored.rms_error,
    )


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False), encoding="utf-8")
