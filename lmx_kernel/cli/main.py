"""The ``lmx`` command."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import NoReturn

from cyclopts import App, CommandCollisionError

from lmx_kernel.cli.terminal import print_error
from lmx_kernel.config import ConfigError
from lmx_kernel.daemon.exit_status import ExitStatus
from lmx_kernel.errors import LmxError
from lmx_kernel.plugins.settings import RequiredPluginError

BUILTIN = {
    "config": ("config",),
    "doctor": ("doctor",),
    "install": ("plugin_packages",),
    "key": ("keys",),
    "ls": ("models",),
    "plugin": ("plugins", "plugin_packages", "plugin_new"),
    "plugins": ("plugins",),
    "ps": ("models",),
    "serve": ("serve",),
}
"""The modules of this package that a command of the kernel's own is in: only these are imported,
and no plugin is loaded.
"""

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
    """
    app = App(
        name="lmx",
        help="A private LLM inference server that runs without a human.",
        version=_version,
    )
    word = next((word for word in arguments if word not in HELP), HELP[0])
    if word in BUILTIN:
        _add(app, _own_commands(BUILTIN[word]))
        return app
    own = {name for names in BUILTIN.values() for name in names}
    if word in HELP:
        _add(app, _own_commands(own))
    if word != "--version":
        _add_commands_of_plugins(app, word)
        if word not in (*HELP, *app):  # a slip: the message suggests what there is
            _add(app, _own_commands(own))
    return app


def _version() -> str:
    from lmx_kernel import __version__  # noqa: PLC0415 - read from metadata, seldom needed

    return __version__


def _own_commands(modules: Iterable[str]) -> Iterable[App]:
    for name in sorted(modules):
        yield from importlib.import_module(f"lmx_kernel.cli.{name}").lmx_commands()


def _add_commands_of_plugins(app: App, word: str) -> None:
    from lmx_kernel.cli.plugin_commands import commands_for  # noqa: PLC0415 - loads plugins

    try:
        _add(app, commands_for(word))
    except ConfigError:
        if word not in HELP:
            raise
        print_error("The commands of plugins are missing: `lmx config check` says why.")


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
