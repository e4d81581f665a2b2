"""The ``lmx`` command."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from typing import NoReturn

from cyclopts import App, CommandCollisionError

from lmx_kernel import __version__
from lmx_kernel.cli import config, doctor, keys, models, plugins, serve
from lmx_kernel.cli.terminal import print_error
from lmx_kernel.config import ConfigError
from lmx_kernel.daemon.exit_status import ExitStatus
from lmx_kernel.errors import LmxError
from lmx_kernel.kernel.boot import boot
from lmx_kernel.plugins.manager import RequiredPluginError, commands_of

# Modules with the hook `lmx_commands`. Their commands need neither plugins nor a good config.
BUILTIN = (config, doctor, keys, models, plugins, serve)
HELP = ("--help", "-h")


def main() -> None:
    """Run the ``lmx`` command."""
    run(lambda: command_line(sys.argv[1:]))


def run(make: Callable[[], App]) -> None:
    """Run a command line; what a user can do something about is a line and an exit status.

    :param make: returns the command line.
    """
    try:
        make()()
    except (ConfigError, RequiredPluginError) as error:
        _fail(str(error), ExitStatus.CONFIG)
    except LmxError as error:
        _fail(error.message, 1)
    except OSError as error:  # a full disk, say, or a folder of somebody else
        _fail(f"{error.filename}: {error.strerror}" if error.filename else str(error), 1)


def command_line(arguments: Sequence[str]) -> App:
    """Return the ``lmx`` command for these arguments, with the commands of plugins too, unless
    the arguments begin with one of the kernel's own.

    :raises ConfigError: only a plugin can offer the command, and the config is wrong.
    :raises RequiredPluginError: the same, and a plugin that the config requires is not active.
    """
    app = App(
        name="lmx",
        help="A private LLM inference server that runs without a human.",
        version=__version__,
    )
    _add(app, commands_of(BUILTIN))
    word = arguments[0] if arguments else HELP[0]
    if word in HELP or word not in set(app):
        try:
            _add(app, boot().plugins.commands())
        except (ConfigError, RequiredPluginError):
            if word not in HELP:
                raise
            print_error("The commands of plugins are missing: `lmx config check` says why.")
    return app


def _add(app: App, commands: Iterable[App]) -> None:
    """Add commands; one whose name is taken is left out."""
    for command in commands:
        try:
            app.command(command)
        except CommandCollisionError as error:
            print_error(f"A plugin's command is left out: {error}")


def _fail(message: str, status: int) -> NoReturn:
    print_error(message)
    sys.exit(status)
