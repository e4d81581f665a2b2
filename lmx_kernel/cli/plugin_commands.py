"""The commands of plugins. Which plugin has which command is kept in a file until another set of
plugins is installed, so that a command loads the plugin that it belongs to, and no other.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
from attrs import define, field
from cyclopts import App

from lmx_kernel.cli.light_config import light_settings
from lmx_kernel.config import Settings
from lmx_kernel.config.private_file import write_private
from lmx_kernel.plugins.entry_points import entry_points
from lmx_kernel.plugins.installed import Installed
from lmx_kernel.plugins.registrations import GROUP
from lmx_kernel.plugins.settings import PluginSettings

FILE = Path("run", "commands.json")


@define
class Owners:
    """Which plugin has which command.

    :ivar key: stands for the set of plugins.
    """

    key: str
    plugins: dict[str, str] = field(factory=dict)


def commands_for(word: str) -> Sequence[App]:
    """Return the commands of the plugin that has the command ``word``; those of all plugins if
    ``word`` is "".

    :raises ConfigError: the config is wrong.
    """
    settings = light_settings()
    known = _read(settings)
    if known is None:
        return _load_all(settings)
    owners = known.plugins.values() if not word else filter(None, [known.plugins.get(word)])
    try:
        return [app for owner in sorted(set(owners)) for app in _load_one(owner)]
    # Plugins may fail in any way, including sys.exit(); then the log says which.
    except (Exception, SystemExit):  # noqa: BLE001
        return _load_all(settings)


def _load_one(plugin: str) -> Iterable[App]:
    """Return the commands of a plugin, without the checks that the daemon makes.

    :raises TypeError: it asks for a context, which only :func:`_load_all` has.
    """
    entries = [entry for entry in entry_points(GROUP) if entry.name == plugin]
    loaded: Any = entries[0].load() if entries else importlib.import_module(plugin)
    return loaded.lmx_commands() or ()


def _load_all(settings: Settings) -> Sequence[App]:
    """Load all plugins, write down which has which command, and return the commands."""
    from lmx_kernel.observe.log import LogSettings, configure  # noqa: PLC0415 - takes long
    from lmx_kernel.plugins.manager import Plugins  # noqa: PLC0415 - takes long

    configure(LogSettings(level="error"), None)
    chosen = settings.get(PluginSettings)
    plugins = Plugins(chosen)
    plugins.contexts.use(light_settings(more=plugins.settings_sections()))
    commands = plugins.commands_by_plugin()
    owners = {name: plugin for plugin, apps in commands for app in apps for name in app.name}
    _write(settings, Owners(_key(chosen), owners))
    return [app for _, apps in commands for app in apps]


def _key(settings: PluginSettings) -> str:
    """Return what changes when another set of plugins would be loaded."""
    packages: Iterable[str] = (
        f"{entry.name} {entry.value} {Installed.of(entry.dist)}"
        for entry in (entry_points(GROUP) if settings.discover else ())
        if entry.dist is not None
    )
    return sha256("\n".join([repr(settings), *sorted(packages)]).encode()).hexdigest()


def _read(settings: Settings) -> Owners | None:
    try:
        known = msgspec.json.decode((settings.home / FILE).read_bytes(), type=Owners)
    except (OSError, ValueError):
        return None
    return known if known.key == _key(settings.get(PluginSettings)) else None


def _write(settings: Settings, owners: Owners) -> None:
    try:
        write_private(settings.home / FILE, msgspec.json.encode(owners))
    except OSError:  # the next command loads all plugins as well
        return
