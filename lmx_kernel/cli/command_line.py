"""The ``lmx`` command with its subcommands, as far as the arguments need them."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Sequence

from cyclopts import App, CommandCollisionError

from lmx_kernel.cli.terminal import print_error
from lmx_kernel.config import ConfigError

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
