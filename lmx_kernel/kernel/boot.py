"""Reads the config and loads the plugins, in two stages: plugins have sections of their own."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import structlog
from attrs import frozen

from lmx_kernel.config import (
    ConfigError,
    Document,
    Problem,
    Settings,
    config_error,
    read_config,
    refuse,
    structure,
)
from lmx_kernel.config.strict import unknown
from lmx_kernel.config.toml_lines import Key
from lmx_kernel.http.settings import ServerSettings
from lmx_kernel.interfaces import SettingsSection
from lmx_kernel.kernel.boot_verdict import NORMAL, BootVerdict
from lmx_kernel.kernel.model_table_checks import faults_of_tables, is_foreign
from lmx_kernel.memory.budget import MemorySettings
from lmx_kernel.models.backends import Backends
from lmx_kernel.models.model_table import ModelTables
from lmx_kernel.observe.log import LogSettings, configure
from lmx_kernel.plugins.manager import Plugins
from lmx_kernel.plugins.settings import PluginSettings
from lmx_kernel.prefixes.settings import CacheSettings
from lmx_kernel.routing.decide import RoutingSettings
from lmx_kernel.runtime.settings import ModelSettings, QueueSettings
from lmx_kernel.stored.settings import StoredAnswerSettings

KERNEL_SECTIONS = (
    SettingsSection("cache", CacheSettings),
    SettingsSection("log", LogSettings),
    SettingsSection("memory", MemorySettings),
    SettingsSection("model", ModelTables),
    SettingsSection("models", ModelSettings),
    SettingsSection("plugins", PluginSettings),
    SettingsSection("queue", QueueSettings),
    SettingsSection("routing", RoutingSettings),
    SettingsSection("server", ServerSettings),
    SettingsSection("stored_answers", StoredAnswerSettings),
)
FIRST_SECTIONS = tuple(section for section in KERNEL_SECTIONS if section.name in ("log", "plugins"))
RESERVED = frozenset(section.name for section in KERNEL_SECTIONS)
MISSPELT_RATIO = 0.8
log = structlog.get_logger(__name__)


@frozen
class Booted:
    """The config and the plugins that a kernel is built from.

    :ivar sections: all known sections, also those of plugins that were added later.
    :ivar read: reads the config again.
    """

    settings: Settings
    plugins: Plugins
    sections: list[SettingsSection]
    read: Callable[[], Document]
    verdict: BootVerdict = NORMAL

    def reload(self) -> list[str]:
        """Read the config again. Apply what may change while the daemon runs, and the sections of
        plugins that were added since.

        :returns: the keys whose new values need a restart, such as ``server.port``.
        :raises ConfigError: with every problem; nothing changed.
        """
        self.sections[:] = [*KERNEL_SECTIONS, *self.plugins.settings_sections(RESERVED)]
        document = self.read()
        fresh = structure(document, self.sections, ignored=_others(document, self.plugins))
        _check_tables(document, fresh, self.plugins, self.sections)
        waiting = []
        for section in self.sections:
            waiting += self.settings.adopt(section, fresh.get(section.cls))
        return waiting

    def unknown_sections(self) -> list[Problem]:
        """Return the sections of the config that belong to nothing that is installed."""
        return list(_unknown_sections(self.read(), self.plugins, self.sections))

    def refuse(self, key: Key, why: str, kind: type[ConfigError] = ConfigError) -> ConfigError:
        """Return the error for a value of the config that cannot be used, with its place there.

        :param key: such as ``("server", "tls_cert")``.
        """
        return refuse(self.read(), key, why, kind)


def boot(
    config: Path | None = None,
    verdict: BootVerdict = NORMAL,
    *,
    log_to_file: bool = False,
    is_supervised: bool = False,
    patience_s: float | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Booted:
    """Read the config, load the plugins, and structure the sections of both.

    A plugin's section has the plugin's name. A section that belongs to no active plugin is ignored,
    so that disabling or uninstalling one needs no other change; one that belongs to none that is
    installed is warned of, and an error where its name is nearly one of the kernel's own.

    :param config: the file; None for the one in LMX's own folder.
    :param verdict: how to start.
    :param patience_s: see :class:`~lmx_kernel.plugins.manager.Plugins`.
    :param log_to_file: also log to LMX's own folder, if the config allows it.
    :param is_supervised: a supervisor keeps standard error; of what goes to the file, only warnings
        go there too.
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
    plugins = Plugins(first.get(PluginSettings), safe_mode=verdict.safe_mode, patience_s=patience_s)
    plugins.check_required()
    sections = [*KERNEL_SECTIONS, *plugins.settings_sections(RESERVED)]
    for problem in _unknown_sections(document, plugins, sections):
        log.warning("section_ignored", problem=str(problem))
    settings = structure(document, sections, ignored=_others(document, plugins))
    plugins.contexts.use(settings)
    _check_tables(document, settings, plugins, sections)
    return Booted(settings, plugins, sections, read, verdict)


def _check_tables(
    document: Document, settings: Settings, plugins: Plugins, sections: list[SettingsSection]
) -> None:
    """Check the tables ``[[model]]`` as far as that needs the backends. What belongs to none of
    them is not refused while a plugin is not active: it may be that one's.

    :raises ConfigError: with every problem.
    """
    tables = settings.get(ModelTables).tables
    if not tables:
        return
    backends = Backends(partial(plugins.backends, settings), sections, settings)
    faults = list(faults_of_tables(tables, backends))
    is_complete = all(status.is_in_use for status in plugins.statuses)
    foreign = [] if is_complete else [fault for fault in faults if is_foreign(fault)]
    for problem in config_error(document, foreign).problems:
        log.warning("model_setting_ignored", problem=str(problem))
    if len(faults) > len(foreign):
        raise config_error(document, [fault for fault in faults if fault not in foreign])


def _others(document: Document, plugins: Plugins) -> list[str]:
    """Return the tables that may be sections of plugins: not those with a misspelt name of the
    kernel's own, which may hold what keeps the server closed.
    """
    installed = {status.name for status in plugins.statuses}
    return [
        name
        for name in document.tables
        if name in installed or not difflib.get_close_matches(name, RESERVED, 1, MISSPELT_RATIO)
    ]


def _unknown_sections(
    document: Document, plugins: Plugins, sections: list[SettingsSection]
) -> Iterator[Problem]:
    """Yield the sections that are of no plugin, also of none that is disabled or failed."""
    known = {section.name for section in sections}
    installed = {status.name for status in plugins.statuses}
    faults = [
        ((name,), f"{unknown('section', name, known)}; it is ignored")
        for name in _others(document, plugins)
        if name not in known and name not in installed
    ]
    yield from config_error(document, faults).problems
