"""Config and plugins need each other: first the list of plugins is read, then their sections."""

from __future__ import annotations

from pathlib import Path

from attrs import frozen

from lmx_kernel.boot_guard import NORMAL, BootVerdict
from lmx_kernel.config import Settings, read_config, structure
from lmx_kernel.http.settings import ServerSettings
from lmx_kernel.interfaces import SettingsSection
from lmx_kernel.log import LogSettings, configure
from lmx_kernel.memory.budget import MemorySettings
from lmx_kernel.plugins import Plugins, PluginSettings, PluginState
from lmx_kernel.routing import RoutingSettings
from lmx_kernel.runtime.settings import ModelSettings, QueueSettings

KERNEL_SECTIONS = (
    SettingsSection("log", LogSettings),
    SettingsSection("memory", MemorySettings),
    SettingsSection("models", ModelSettings),
    SettingsSection("plugins", PluginSettings),
    SettingsSection("queue", QueueSettings),
    SettingsSection("routing", RoutingSettings),
    SettingsSection("server", ServerSettings),
)
FIRST_SECTIONS = tuple(section for section in KERNEL_SECTIONS if section.name in ("log", "plugins"))


@frozen
class Booted:
    """What everything else is built from."""

    settings: Settings
    plugins: Plugins
    sections: tuple[SettingsSection, ...]
    verdict: BootVerdict = NORMAL


def boot(
    config: Path | None = None, verdict: BootVerdict = NORMAL, *, log_to_file: bool = False
) -> Booted:
    """Read the config, load the plugins, and structure the sections of both.

    A plugin's section is named as the plugin; sections of plugins that are not active are passed
    over, so that disabling one needs no other change.

    :param verdict: the boot guard's; in its safe mode a section that nobody knows is passed over.
    :param log_to_file: log to LMX's own folder, too, if the config allows.
    :raises ConfigError: with every problem in the config.
    :raises RequiredPluginError: a plugin that the config requires is not active.
    """
    document = read_config(config)
    first = structure(document, FIRST_SECTIONS, ignored=document.tables)
    configure(first.get(LogSettings), document.home if log_to_file else None)
    plugins = Plugins(first.get(PluginSettings), safe_mode=verdict.safe_mode)
    plugins.check_required()
    sections = (*KERNEL_SECTIONS, *plugins.settings_sections())
    inactive = {
        status.name for status in plugins.statuses if status.state is not PluginState.ACTIVE
    }
    ignored = document.tables if verdict.safe_mode else inactive
    return Booted(structure(document, sections, ignored=ignored), plugins, sections, verdict)
