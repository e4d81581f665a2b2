"""``lmx serve``."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Annotated

from cyclopts import App, Parameter

from lmx_kernel.cli.terminal import ConfigPath, command
from lmx_kernel.daemon.exit_status import ExitStatus

Supervised = Annotated[
    bool,
    Parameter(
        negative="",
        help="For a supervisor that knows only success and failure, and has no watchdog (launchd): "
        "exit 0 if the config is wrong, and end when the event loop is stuck.",
    ),
]


def serve(config: ConfigPath = None, supervised: Supervised = False) -> None:
    """Serve until told to stop (SIGTERM or Ctrl-C)."""
    from lmx_kernel.daemon.start import run  # noqa: PLC0415 - the other commands need no server

    status = run(config, is_supervised=supervised)
    sys.exit(0 if supervised and status == ExitStatus.CONFIG else status)


def lmx_commands() -> Iterable[App]:
    """``lmx serve``."""
    return [command(serve)]
