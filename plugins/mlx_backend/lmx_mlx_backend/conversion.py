"""The kind of job that makes an MLX model of another one that is on disk."""

from __future__ import annotations

import asyncio
import hashlib
import re
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from attrs import frozen

from lmx_kernel.errors import ConflictError, InvalidRequestError, ModelUnusableError
from lmx_kernel.interfaces import Job, Kernel, Report
from lmx_kernel.jobs.child import run_child
from lmx_kernel.types import ModelCard

WORK = "lmx_mlx_backend.convert.work"
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
PLAIN = ("float32", "float16", "bfloat16")
DEFAULT_BITS = 4
NAME = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")
MAX_NAME = 200


@frozen
class ConvertSpec:
    """A model to convert.

    :param model: as the catalogue knows it: a GGUF file, which keeps its numbers, or a folder of
        plain weights, which is quantised.
    :param bits: of the weights of a folder, 4 if not given; a GGUF file has its own.
    :param name: of the new model, ``publisher/name`` or ``name``; by default the old one's name
        with ``-mlx``, or with the bits where they are given, as ``-8bit``.
    """

    model: str
    bits: Literal[4, 8] | None = None
    name: str | None = None


class Conversions:
    """Converts models, each in a child process that ends when it is cancelled.

    The result says what the new ``model`` is called, how many ``bytes`` its weights have, and
    whether it is ``lossless``.

    :param folder: gets the new models, each whole or not at all.
    :param reserve_bytes: what stays free on its disk.
    """

    name = "convert"
    unit = "bytes"
    spec = ConvertSpec
    parallel = 1

    def __init__(self, kernel: Kernel, folder: Path, reserve_bytes: int) -> None:
        self._kernel = kernel
        self._folder = folder
        self._reserve_bytes = reserve_bytes

    def key(self, spec: ConvertSpec) -> str:
        """Return ``model>name:bits``.

        :raises LmxError: as :meth:`run`, for what is known before.
        """
        card = self._kernel.find(spec.model)
        _work(card, spec)
        return f"{card.id}>{_name(spec)}:{spec.bits or ''}"

    async def run(self, spec: ConvertSpec, report: Report) -> Mapping[str, Any]:
        """Convert, from the beginning.

        :raises ModelNotFoundError: there is no such model.
        :raises ModelUnusableError: it is damaged, or of a kind that is not converted.
        :raises InvalidRequestError: it is quantised already, or does not go with ``bits``.
        :raises ConflictError: there is something of the new name.
        :raises DiskFullError: the disk has not the room, or ran full.
        """
        card = self._kernel.find(spec.model)
        function, bits = _work(card, spec)
        name = _name(spec)
        target, partial = self._folder / name, self._partial(spec)
        _check_free(target, name)
        await self.discard(spec)  # of a run that was cut off
        order = {
            "source": str(card.path),
            "target": str(partial / "model"),
            "bits": bits,
            "size_bytes": card.size_bytes,
            "reserve_bytes": self._reserve_bytes,
        }
        try:
            done = await run_child(f"{WORK}:{function}", order, report, env=OFFLINE)
            _check_free(target, name)
            (partial / "model").rename(target)
        finally:
            await self.discard(spec)
        return {"model": name, **done}

    def result_exists(self, done: Job) -> bool:
        """Tell whether the new model is on disk, and was not changed after the job was done."""
        assert done.result is not None
        target = self._folder / done.result["model"]
        return target.exists() and target.stat().st_mtime <= done.updated_at

    async def discard(self, spec: ConvertSpec) -> None:
        """Remove what there is of a conversion that will not go on."""
        partial = self._partial(spec)
        await asyncio.to_thread(shutil.rmtree, partial, ignore_errors=True)
        with suppress(OSError):  # the publisher's folder, if nothing else is in it
            partial.parent.rmdir()

    def _partial(self, spec: ConvertSpec) -> Path:
        target = self._folder / _name(spec)
        digest = hashlib.sha256(repr(spec).encode()).hexdigest()[:12]
        return target.with_name(f".{target.name}@{digest}.part")


def _work(card: ModelCard, spec: ConvertSpec) -> tuple[str, int | None]:
    """Return the function that converts ``card``, and the bits it is told."""
    if card.problem is not None:
        raise ModelUnusableError(f"{card.id} cannot be used: {card.problem}", param="model")
    if card.format == "gguf":
        if spec.bits is not None:
            raise InvalidRequestError(
                "a GGUF model keeps its own quantisation; leave bits out", param="bits"
            )
        return "convert_file", None
    if card.format != "mlx" or card.quantization not in PLAIN:
        raise InvalidRequestError(
            f"{card.id} is not plain weights ({card.format}, {card.quantization})", param="model"
        )
    return "quantize_folder", spec.bits or DEFAULT_BITS


def _check_free(target: Path, name: str) -> None:
    if target.exists():
        raise ConflictError(f"there is a model {name} already; choose another name")


def _name(spec: ConvertSpec) -> str:
    if spec.name is None:
        last = spec.model.rstrip("/").rpartition("/")[2]
        suffix = f"{spec.bits}bit" if spec.bits else "mlx"
        return re.sub(r"[^\w-]+", "-", last).strip("-")[:MAX_NAME] + f"-{suffix}"
    if len(spec.name) > MAX_NAME or not NAME.fullmatch(spec.name):
        raise InvalidRequestError(
            "name: letters, digits, dots and dashes, as `publisher/name` or `name`", param="name"
        )
    return spec.name
