"""The hooks of this plugin."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from lmx_hub.settings import HubSettings
from lmx_kernel.config.section import SettingsSection
from lmx_kernel.hookspecs import Context, hookimpl

if TYPE_CHECKING:
    from cyclopts import App

    from lmx_kernel.interfaces import JobKind, Kernel


@hookimpl
def lmx_settings() -> Iterable[SettingsSection]:
    """Return the section ``[hub]``."""
    return [SettingsSection("hub", HubSettings)]


@hookimpl
def lmx_job_kinds(kernel: Kernel, context: Context) -> Iterable[JobKind]:
    """Return the kind ``download``."""
    from lmx_hub.kind import Downloads  # noqa: PLC0415 - commands download nothing

    downloads = context.metrics.counter("downloads", "Downloads that ended.", ["outcome"])
    size_bytes = context.metrics.counter("downloaded_bytes", "Size of the models that came.")

    def count(outcome: str, received_bytes: int) -> None:
        downloads.add(outcome=outcome)
        size_bytes.add(received_bytes)

    return [Downloads(kernel.settings(HubSettings), count)]


@hookimpl
def lmx_commands() -> Iterable[App]:
    """Return ``lmx pull``."""
    from lmx_hub.command import app  # noqa: PLC0415 - the daemon draws no bars

    return [app]
