"""``lmx serve``."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import Annotated

from cyclopts import App, Parameter

from lmx_kernel.cli.terminal import ConfigPath, command
from lmx_kernel.hookspecs import hookimpl

Supervised = Annotated[
    bool,
    Parameter(negative="", help="Exit 0 if the config is wrong, since a new start cannot help."),
]


def serve(config: ConfigPath = None, supervised: Supervised = False) -> None:
    """Serve until told to stop (SIGTERM or Ctrl-C)."""
    from lmx_kernel.daemon.serve import run  # noqa: PLC0415 - the other commands need no server

    status = run(config)
    sys.exit(0 if supervised and status == os.EX_CONFIG else status)


@hookimpl
def lmx_commands() -> Iterable[App]:
    """``lmx serve``."""
    return [command(serve)]
