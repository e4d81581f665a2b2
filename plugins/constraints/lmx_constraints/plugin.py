"""The hooks of this plugin."""

from __future__ import annotations

from collections.abc import Iterable

from lmx_constraints.settings import ConstraintSettings
from lmx_kernel.hookspecs import CONSTRAINT_SECTION, hookimpl
from lmx_kernel.interfaces import SettingsSection


@hookimpl
def lmx_settings() -> Iterable[SettingsSection]:
    """Return the section ``[constraints]``."""
    return [SettingsSection(CONSTRAINT_SECTION, ConstraintSettings)]
