"""The part of the config that a command needs to find the daemon. No plugin is loaded for it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from lmx_kernel.config import Settings, read_config, structure
from lmx_kernel.config.section import SettingsSection
from lmx_kernel.http.settings import ServerSettings
from lmx_kernel.plugins.settings import PluginSettings

SECTIONS = (
    SettingsSection("plugins", PluginSettings),
    SettingsSection("server", ServerSettings),
)


def light_settings(config: Path | None = None, more: Iterable[SettingsSection] = ()) -> Settings:
    """Return the sections ``plugins`` and ``server``; all others are ignored.

    :param config: the file; None for the one in LMX's own folder.
    :param more: further sections, of plugins that were loaded.
    :raises ConfigError: with every problem of these.
    """
    document = read_config(config)
    return structure(document, (*SECTIONS, *more), ignored=document.tables)
