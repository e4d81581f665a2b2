"""``lmx config``."""

from __future__ import annotations

from collections.abc import Iterable

from cyclopts import App

from lmx_kernel.cli.terminal import ConfigPath, Flag, console, print_error
from lmx_kernel.config import ConfigError

app = App(name="config", help="Look at the config.")


@app.command
def check(config: ConfigPath = None, *, strict: Flag = False) -> None:
    """Check the config; exit 78 and say every problem if it is wrong.

    Parameters
    ----------
    strict
        A section that belongs to nothing that is installed is a problem, and not a warning.
    """
    from lmx_kernel.daemon.checks import check_server  # noqa: PLC0415 - the others need no TLS
    from lmx_kernel.kernel.boot import boot  # noqa: PLC0415 - takes long

    booted = boot(config)
    check_server(booted)
    unknown = booted.unknown_sections()
    if unknown and strict:
        raise ConfigError(unknown)
    for problem in unknown:
        print_error(f"warning: {problem}")
    console.print("The config is fine." if not unknown else "The config is fine otherwise.")


def lmx_commands() -> Iterable[App]:
    """``lmx config``."""
    return [app]
