"""The hooks of this plugin."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from lmx_host_monitor.settings import HostMonitorSettings
from lmx_kernel.config.section import SettingsSection
from lmx_kernel.hookspecs import hookimpl

if TYPE_CHECKING:
    from lmx_kernel.config import Settings
    from lmx_kernel.interfaces import Monitor


@hookimpl
def lmx_settings() -> Iterable[SettingsSection]:
    """Return the section ``[host_monitor]``."""
    return [SettingsSection("host_monitor", HostMonitorSettings)]


@hookimpl
def lmx_monitors(settings: Settings) -> Iterable[Monitor]:
    """Return the monitor of this machine."""
    from lmx_host_monitor.monitor import HostMonitor  # noqa: PLC0415 - commands watch nothing

    return [HostMonitor(settings.get(HostMonitorSettings).interval_s, settings.home)]
