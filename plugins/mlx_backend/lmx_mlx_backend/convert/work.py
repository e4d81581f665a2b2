"""What the children of :class:`lmx_mlx_backend.conversion.Conversions` do."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lmx_kernel.errors import ModelUnusableError
from lmx_kernel.interfaces import Report
from lmx_mlx_backend.convert.convert import convert
from lmx_mlx_backend.convert.space import Space
from lmx_mlx_backend.folder import read_folder
from lmx_mlx_backend.plain_json import plain_json

SCALES_BITS = 1
"""A scale and a bias in 16 bits each, for groups of 64 numbers, take half of this."""


def convert_file(order: Mapping[str, Any], report: Report) -> dict[str, Any]:
    """Write a GGUF file as an MLX folder.

    :raises LmxError: it cannot be converted, or the disk is or would be full.
    """
    source, target = Path(order["source"]), Path(order["target"])
    space = Space(target, order["reserve_bytes"])
    space.check(order["size_bytes"])

    def progress(done: int, total: int) -> None:
        space.check()
        report(done, total, source.name)

    with space.watched():
        done = convert(source, target, progress=progress)
    return {"bytes": done.size_after, "lossless": done.is_lossless}


def quantize_folder(order: Mapping[str, Any], report: Report) -> dict[str, Any]:
    """Write a folder of plain weights as one of quantised weights.

    :raises LmxError: it cannot be converted, or the disk is or would be full.
    """
    import mlx_lm  # noqa: PLC0415 - brings transformers, which a file does not need

    source, target = Path(order["source"]), Path(order["target"])
    model = read_folder(source)  # refuses what would run code, or end the process
    space = Space(target, order["reserve_bytes"])
    space.check(sum(model.elements.values()) * (order["bits"] + SCALES_BITS) / 8)
    report(0, model.size_bytes, "quantizing")
    with space.watched(), plain_json(source) as folder:
        target.parent.mkdir(parents=True)
        try:
            mlx_lm.convert(str(folder), str(target), quantize=True, q_bits=order["bits"])
        except (ValueError, KeyError, TypeError, RuntimeError) as error:
            raise ModelUnusableError(f"mlx-lm cannot convert it: {error}") from error
        for code in target.glob("*.py"):  # it copies them; nothing here runs them
            code.unlink()
    report(model.size_bytes, model.size_bytes, "quantizing")
    return {"bytes": read_folder(target).size_bytes, "lossless": False}
