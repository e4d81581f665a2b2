"""``lmx config``."""

from __future__ import annotations

from collections.abc import Iterable

from cyclopts import App

from lmx_kernel.cli.terminal import ConfigPath, console
from lmx_kernel.hookspecs import hookimpl
from lmx_kernel.kernel.boot import boot

app = App(name="config", help="Look at the config.")


@app.command
def check(config: ConfigPath = None) -> None:
    """Check the config; exit 78 and say every problem if it is wrong."""
    from lmx_kernel.daemon.checks import check_server  # noqa: PLC0415 - the others need no TLS

    check_server(boot(config))
    console.print("The config is fine.")


@hookimpl
def lmx_commands() -> Iterable[App]:
    """``lmx config``."""
    return [app]
