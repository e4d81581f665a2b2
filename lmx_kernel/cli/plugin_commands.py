"""The commands of plugins. Which plugin has which command is kept in a file until another set of
plugins is installed, so that a command loads the plugin that it belongs to, and no other.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterable, Sequence
from hashlib import sha256
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import msgspec
from attrs import define, field, frozen
from cyclopts import App

from lmx_kernel.cli.light_config import light_settings
from lmx_kernel.config import Settings
from lmx_kernel.config.private_file import write_private
from lmx_kernel.plugins.entry_points import entry_points
from lmx_kernel.plugins.package_folder import changed_at, folder_of
from lmx_kernel.plugins.registrations import GROUP
from lmx_kernel.plugins.settings import PluginSettings

FILE = Path("run", "commands.json")
CONTEXT = "context"


@frozen
class Listed:
    """A command as it is listed.

    :ivar plugin: has it.
    :ivar help: its line.
    """

    plugin: str
    help: str
    show: bool = True


@define
class Listing:
    """The commands of all plugins.

    :ivar key: stands for the set of plugins.
    """

    key: str
    commands: dict[str, Listed] = field(factory=dict)


def commands_for(word: str) -> Sequence[App]:
    """Return the commands of the plugin that has the command ``word``. If none has it, return what
    is listed of all of them, which is enough for `--help` and to suggest one.

    :raises ConfigError: the config is wrong.
    """
    settings = light_settings()
    chosen = settings.get(PluginSettings)
    plugins = entry_points(GROUP) if chosen.discover else []
    key = _key(chosen, plugins)
    known = _read(settings, key)
    if known is None:
        return _load_all(settings, key)
    if word not in known.commands:
        return [
            App(name=name, help=one.help, show=one.show) for name, one in known.commands.items()
        ]
    try:
        return list(_load_one(known.commands[word].plugin, plugins))
    # Plugins may fail in any way, including sys.exit(); then the log says which.
    except (Exception, SystemExit):  # noqa: BLE001
        return _load_all(settings, key)


def _load_one(name: str, plugins: Iterable[EntryPoint]) -> Iterable[App]:
    """Return the commands of a plugin, without the checks that the daemon makes."""
    entries = [entry for entry in plugins if entry.name == name]
    plugin: Any = entries[0].load() if entries else importlib.import_module(name)
    if CONTEXT not in inspect.signature(plugin.lmx_commands).parameters:
        return plugin.lmx_commands() or ()
    from lmx_kernel.plugins.contexts import Contexts  # noqa: PLC0415 - takes long

    contexts = Contexts()
    contexts.use(light_settings(more=plugin.lmx_settings() if _has_settings(plugin) else ()))
    return plugin.lmx_commands(context=contexts.of(name)) or ()


def _has_settings(plugin: object) -> bool:
    return hasattr(plugin, "lmx_settings")


def _load_all(settings: Settings, key: str) -> Sequence[App]:
    """Load all plugins, write down which has which command, and return the commands."""
    from lmx_kernel.observe.log import LogSettings, configure  # noqa: PLC0415 - takes long
    from lmx_kernel.plugins.manager import Plugins  # noqa: PLC0415 - takes long

    configure(LogSettings(level="error"), None)
    plugins = Plugins(settings.get(PluginSettings))
    plugins.contexts.use(light_settings(more=plugins.settings_sections()))
    commands = plugins.commands_by_plugin()
    listed = {
        name: Listed(plugin, app.help.partition("\n\n")[0], bool(app.show))
        for plugin, apps in commands
        for app in apps
        for name in app.name
    }
    _write(settings, Listing(key, listed))
    return [app for _, apps in commands for app in apps]


def _key(settings: PluginSettings, plugins: Iterable[EntryPoint]) -> str:
    """Return what changes when another set of plugins would be loaded."""
    packages = (
        f"{entry.name} {entry.value} {folder} {changed_at(folder)}"
        for entry in plugins
        if entry.dist is not None
        for folder in [folder_of(entry.dist)]
    )
    return sha256("\n".join([repr(settings), *sorted(packages)]).encode()).hexdigest()


def _read(settings: Settings, key: str) -> Listing | None:
    try:
        known = msgspec.json.decode((settings.home / FILE).read_bytes(), type=Listing)
    except (OSError, ValueError):
        return None
    return known if known.key == key else None


def _write(settings: Settings, listing: Listing) -> None:
    try:
        write_private(settings.home / FILE, msgspec.json.encode(listing))
    except OSError:  # the next command loads all plugins as well
        return
