"""``lmx plugin new`` and ``lmx plugin check``: the commands of plugin authors."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from lmx_kernel.cli.plugins import app
from lmx_kernel.cli.terminal import console, print_error
from lmx_kernel.plugins.package_check import PackageError, check_package
from lmx_kernel.plugins.scaffold import KINDS, write_package

KINDS_HELP = f"One of {', '.join(KINDS)}."


@app.command
def new(
    kind: Annotated[str, Parameter(help=KINDS_HELP)],
    name: Annotated[str, Parameter(help="Of the plugin, such as my-router.")],
    *,
    into: Annotated[Path, Parameter(help="The folder that the package is written to.")] = Path(),
) -> None:
    """Write the package of a new plugin, which works and passes its check."""
    folder = write_package(kind, name, into)
    console.print(f"{folder} is written. `lmx plugin check {folder}` tests it.")


@app.command
def check(
    folder: Annotated[Path, Parameter(help="The package; it has a pyproject.toml.")] = Path(),
) -> None:
    """Build a plugin's package and run its tests on what was built."""
    try:
        status = check_package(folder.absolute())
    except PackageError as error:
        print_error(str(error))
        sys.exit(1)
    if status:
        print_error("The package does not pass its tests.")
        sys.exit(1)
    console.print("The package is built, registers with LMX, and passes its tests.")


def lmx_commands() -> Iterable[App]:
    """No command beside those of the group."""
    return ()
