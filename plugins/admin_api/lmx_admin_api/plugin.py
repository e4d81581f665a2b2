"""What this distribution adds to LMX."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from lmx_admin_api.settings import AdminSettings
from lmx_kernel.config.section import SettingsSection
from lmx_kernel.hookspecs import hookimpl

if TYPE_CHECKING:
    from cyclopts import App

    from lmx_kernel.interfaces import ApiSurface, JobKind, Kernel


@hookimpl
def lmx_settings() -> Iterable[SettingsSection]:
    """The section ``[admin_api]``."""
    return [SettingsSection("admin_api", AdminSettings)]


@hookimpl
def lmx_api_surfaces(kernel: Kernel) -> Iterable[ApiSurface]:
    """The routes below ``/admin``."""
    from lmx_admin_api.surface import AdminSurface  # noqa: PLC0415 - commands serve nothing

    return [AdminSurface(kernel, kernel.settings(AdminSettings))]


@hookimpl
def lmx_job_kinds(kernel: Kernel) -> Iterable[JobKind]:
    """The kind ``benchmark``."""
    from lmx_admin_api.benchmark import Benchmarks  # noqa: PLC0415 - as above

    return [Benchmarks(kernel)]


@hookimpl
def lmx_commands() -> Iterable[App]:
    """Commands that ask the running daemon."""
    from lmx_admin_api.commands import APPS  # noqa: PLC0415 - the daemon draws no bars

    return APPS
