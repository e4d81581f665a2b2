"""What this distribution adds to LMX."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from lmx_kernel.config.section import SettingsSection
from lmx_kernel.hookspecs import hookimpl
from lmx_router_rules.settings import RulesSettings

if TYPE_CHECKING:
    from cyclopts import App

    from lmx_kernel.config import Settings
    from lmx_kernel.interfaces import Finding, Router
    from lmx_kernel.types import ModelCard


@hookimpl
def lmx_settings() -> Iterable[SettingsSection]:
    """The section ``[router_rules]``."""
    return [SettingsSection("router_rules", RulesSettings)]


@hookimpl
def lmx_routers(settings: Settings) -> Iterable[Router]:
    """The router ``rules``."""
    from lmx_router_rules.router import RulesRouter  # noqa: PLC0415 - commands route nothing

    return [RulesRouter(settings)]


@hookimpl
def lmx_findings(settings: Settings, models: Sequence[ModelCard]) -> Iterable[Finding]:
    """Models that rules name and that are not there."""
    from lmx_router_rules.findings import examine  # noqa: PLC0415 - the daemon does not ask

    return examine(settings, models)


@hookimpl
def lmx_commands() -> Iterable[App]:
    """``lmx route``."""
    from lmx_router_rules.command import app  # noqa: PLC0415 - the daemon prints no tables

    return [app]
