"""What the children of :class:`lmx_mlx_backend.conversion.Conversions` do."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lmx_kernel.errors import DiskFullError, ModelUnusableError
from lmx_kernel.interfaces import Report
from lmx_mlx_backend.convert.convert import convert
from lmx_mlx_backend.folder import read_folder


def convert_file(order: Mapping[str, Any], report: Report) -> dict[str, Any]:
    """Write a GGUF file as an MLX folder.

    :raises LmxError: it cannot be converted, or the disk ran full.
    """
    source, target = Path(order["source"]), Path(order["target"])
    with _on_disk():
        done = convert(
            source, target, progress=lambda done, total: report(done, total, source.name)
        )
    return {"bytes": done.size_after, "lossless": done.is_lossless}


def quantize_folder(order: Mapping[str, Any], report: Report) -> dict[str, Any]:
    """Write a folder of plain weights as one of quantised weights.

    :raises LmxError: it cannot be converted, or the disk ran full.
    """
    import mlx_lm  # noqa: PLC0415 - brings transformers, which a file does not need

    source, target = Path(order["source"]), Path(order["target"])
    model = read_folder(source)  # refuses what would run code, or end the process
    report(0, model.size_bytes, "quantizing")
    target.parent.mkdir(parents=True)
    with _on_disk():
        try:
            mlx_lm.convert(str(source), str(target), quantize=True, q_bits=order["bits"])
        except (ValueError, KeyError, TypeError, RuntimeError) as error:
            raise ModelUnusableError(f"mlx-lm cannot convert it: {error}") from error
        for code in target.glob("*.py"):  # it copies them; nothing here runs them
            code.unlink()
    report(model.size_bytes, model.size_bytes, "quantizing")
    return {"bytes": read_folder(target).size_bytes, "lossless": False}


@contextmanager
def _on_disk() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise DiskFullError("the disk ran full") from error
