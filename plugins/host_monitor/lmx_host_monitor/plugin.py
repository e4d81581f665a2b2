"""The hooks of this plugin."""

from __future__ import annotations

from collections.abc import Iterable

from lmx_host_monitor.monitor import HostMonitor
from lmx_host_monitor.settings import HostMonitorSettings
from lmx_kernel.config import Settings
from lmx_kernel.hookspecs import hookimpl
from lmx_kernel.interfaces import Monitor, SettingsSection


@hookimpl
def lmx_settings() -> Iterable[SettingsSection]:
    """Return the section ``[host_monitor]``."""
    return [SettingsSection("host_monitor", HostMonitorSettings)]


@hookimpl
def lmx_monitors(settings: Settings) -> Iterable[Monitor]:
    """Return the monitor of this machine."""
    return [HostMonitor(settings.get(HostMonitorSettings).interval_s, settings.home)]
