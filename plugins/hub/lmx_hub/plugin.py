"""The hooks of this plugin."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from lmx_hub.kind import Downloads
from lmx_hub.settings import HubSettings
from lmx_kernel.hookspecs import hookimpl
from lmx_kernel.interfaces import JobKind, Kernel, SettingsSection

if TYPE_CHECKING:
    from cyclopts import App


@hookimpl
def lmx_settings() -> Iterable[SettingsSection]:
    """Return the section ``[hub]``."""
    return [SettingsSection("hub", HubSettings)]


@hookimpl
def lmx_job_kinds(kernel: Kernel) -> Iterable[JobKind]:
    """Return the kind ``download``."""
    return [Downloads(kernel.settings(HubSettings))]


@hookimpl
def lmx_commands() -> Iterable[App]:
    """Return ``lmx pull``."""
    from lmx_hub.command import app  # noqa: PLC0415 - the daemon draws no bars

    return [app]
