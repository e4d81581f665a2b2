"""The hooks of this plugin."""

from __future__ import annotations

from collections.abc import Iterable

from lmx_hub.kind import Downloads
from lmx_hub.settings import HubSettings
from lmx_kernel.hookspecs import hookimpl
from lmx_kernel.interfaces import JobKind, Kernel, SettingsSection


@hookimpl
def lmx_settings() -> Iterable[SettingsSection]:
    """Return the section ``[hub]``."""
    return [SettingsSection("hub", HubSettings)]


@hookimpl
def lmx_job_kinds(kernel: Kernel) -> Iterable[JobKind]:
    """Return the kind ``download``."""
    return [Downloads(kernel.settings(HubSettings))]
