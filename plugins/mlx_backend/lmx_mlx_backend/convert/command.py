"""``lmx convert``. Imports no numpy until a file is converted."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn

from cyclopts import App, Parameter
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column, Table

from lmx_kernel.cli.terminal import PlainConsole
from lmx_kernel.config import find_home, models_folder
from lmx_kernel.errors import LmxError
from lmx_kernel.memory.sizes import MIB, format_bytes

if TYPE_CHECKING:
    from lmx_mlx_backend.convert.report import Report

SIGNALS = (signal.SIGTERM, signal.SIGHUP)

app = App(
    name="convert",
    help="Write a GGUF model as an MLX folder, without loss where possible.",
    version_flags=(),
)


@app.default
def convert(
    file: Path,
    *,
    output: Path | None = None,
    dtype: Literal["auto", "float16", "float32"] = "auto",
    dequantize: Annotated[bool, Parameter(negative=())] = False,
) -> None:
    """Write the model in FILE as an MLX folder, which appears whole or not at all.

    Parameters
    ----------
    file
        The GGUF file.
    output
        The new folder; default: models/NAME-mlx in LMX_HOME.
    dtype
        Of scales, norms, and what has no packed form; auto is float16 on macOS, float32 elsewhere.
    dequantize
        Pack nothing: several times larger, and faster on a CPU.
    """
    console = PlainConsole()
    try:
        with _ending_in_order():
            report = _converted(console, file, output or _default_output(file), dtype, dequantize)
    except LmxError as error:
        _fail(error.message)
    except OSError as error:
        _fail(f"cannot write the folder: {error.strerror or error}")
    _print(console, report)


@contextmanager
def _ending_in_order() -> Iterator[None]:
    """Let the signals that end a process end the block as an error would, so that it cleans up."""
    numbers = [one for one in SIGNALS if signal.getsignal(one) is signal.SIG_DFL]
    for number in numbers:
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)


def _converted(console: Console, file: Path, output: Path, dtype: str, is_plain: bool) -> Report:
    from lmx_mlx_backend.convert.convert import Number, convert  # noqa: PLC0415 - brings numpy

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(binary_units=True),
    )
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as bars:
        bar = bars.add_task(file.name, total=None)
        return convert(
            file,
            output,
            number=Number(dtype),
            is_plain=is_plain,
            progress=lambda done, total: bars.update(bar, completed=done, total=total),
        )


def _print(console: Console, report: Report) -> None:
    sizes = f"{format_bytes(report.size_before)} to {format_bytes(report.size_after)}"
    console.print(f"{report.target}: {report.architecture}, {report.tensors} tensors, {sizes}")
    if not report.costs:
        console.print("Every number is the file's, bit for bit.")
        return
    console.print(
        "Kept bit for bit, but for these:"
        if not report.is_lossless
        else "Every number is the file's, but these lie unpacked:"
    )
    name = Column("tensor", overflow="fold")
    table = Table(name, "count", "type", "stored", "MiB", "max error", "rms error", box=None)
    for cost, count in report.groups():
        table.add_row(
            cost.name,
            str(count),
            cost.source,
            cost.stored,
            f"{cost.size_before / MIB:,.1f} -> {cost.size_after / MIB:,.1f}",
            f"{cost.max_error:.1e}" if cost.max_error else "0",
            f"{cost.rms_error:.1e}" if cost.rms_error else "0",
        )
    console.print(table)


def _default_output(file: Path) -> Path:
    return models_folder(find_home()) / f"{file.stem}-mlx"


def _fail(message: str) -> NoReturn:
    print(message, file=sys.stderr)  # noqa: T201 - this is the command line
    sys.exit(1)
