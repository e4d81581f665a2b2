"""``lmx serve``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from cyclopts import App, Parameter

from lmx_kernel.cli import plain_serve
from lmx_kernel.cli.terminal import ConfigPath, command

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
    plain_serve.serve(config, supervised)


def lmx_commands() -> Iterable[App]:
    """``lmx serve``."""
    return [command(serve)]
