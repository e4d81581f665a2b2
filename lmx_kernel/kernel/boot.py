"""Config and plugins need each other: first the list of plugins is read, then their sections."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path

import structlog
from attrs import frozen

from lmx_kernel.config import Document, Settings, read_config, structure
from lmx_kernel.http.settings import ServerSettings
from lmx_kernel.interfaces import PluginState, SettingsSection
from lmx_kernel.kernel.safe_mode import NORMAL, BootVerdict
from lmx_kernel.memory.budget import MemorySettings
from lmx_kernel.observe.log import LogSettings, configure
from lmx_kernel.plugins.discovery import PluginSettings
from lmx_kernel.plugins.manager import Plugins
from lmx_kernel.routing.decide import RoutingSettings
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
log = structlog.get_logger(__name__)


@frozen
class Booted:
    """What everything else is built from.

    :ivar read: reads the config, each time anew.
    :ivar sections: those that are known, of plugins that came later too.
    """

    settings: Settings
    plugins: Plugins
    sections: list[SettingsSection]
    read: Callable[[], Document]
    verdict: BootVerdict = NORMAL

    def reload(self) -> list[str]:
        """Read the config again and put in force what may change while the daemon runs, and the
        sections of plugins that came since.

        :returns: the keys whose new values need a restart, such as ``server.port``.
        :raises ConfigError: with every problem; nothing changed.
        """
        self.sections[:] = [*KERNEL_SECTIONS, *self.plugins.settings_sections()]
        document = self.read()
        ignored = _passed_over(document, self.plugins, self.verdict)
        fresh = structure(document, self.sections, ignored=ignored)
        waiting = []
        for section in self.sections:
            waiting += self.settings.adopt(section, fresh.get(section.cls))
        return waiting


def boot(
    config: Path | None = None,
    verdict: BootVerdict = NORMAL,
    *,
    log_to_file: bool = False,
    is_supervised: bool = False,
    environ: Mapping[str, str] = os.environ,
) -> Booted:
    """Read the config, load the plugins, and structure the sections of both.

    A plugin's section is named as the plugin; sections of plugins that are not active are passed
    over, so that disabling one needs no other change.

    :param verdict: the boot guard's; in its safe mode a section that nobody knows is passed over.
    :param config: the file; None for the one in LMX's own folder.
    :param log_to_file: log to LMX's own folder, too, if the config allows.
    :param is_supervised: standard error is kept by a supervisor: of what goes to the file, only
        warnings go there too.
    :raises ConfigError: with every problem in the config.
    :raises RequiredPluginError: a plugin that the config requires is not active.
    """
    read = partial(read_config, config, environ)
    document = read()
    first = structure(document, FIRST_SECTIONS, ignored=document.tables)
    home = document.home if log_to_file else None
    configure(first.get(LogSettings), home, is_supervised=is_supervised)
    for variable in document.ignored_variables:
        log.warning("variable_ignored", variable=variable, reason="set by Kubernetes")
    plugins = Plugins(first.get(PluginSettings), safe_mode=verdict.safe_mode)
    plugins.check_required()
    sections = [*KERNEL_SECTIONS, *plugins.settings_sections()]
    ignored = _passed_over(document, plugins, verdict)
    settings = structure(document, sections, ignored=ignored)
    return Booted(settings, plugins, sections, read, verdict)


def _passed_over(document: Document, plugins: Plugins, verdict: BootVerdict) -> Collection[str]:
    """Return the sections that need no owner."""
    if verdict.safe_mode:
        return document.tables
    return {status.name for status in plugins.statuses if status.state is not PluginState.ACTIVE}
