"""Looks, for `lmx doctor`, whether the disk has room and each model can be loaded."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Sequence

from attrs import frozen

from lmx_kernel.api import Finding, ModelCard, Settings, SettingsSection, hookimpl
from lmx_kernel.api.commands import format_bytes


@frozen(kw_only=True)
class KeptSettings:
    """Section ``[kept]``.

    :ivar free_bytes: less free space than this is a finding.
    """

    free_bytes: int = 0


@hookimpl
def lmx_settings() -> Iterable[SettingsSection]:
    """The section ``[kept]``."""
    return [SettingsSection("kept", KeptSettings)]


@hookimpl
def lmx_findings(settings: Settings, models: Sequence[ModelCard]) -> Iterator[Finding]:
    """Called in the command's own process; may take some seconds, and start a child process."""
    wanted = settings.get(KeptSettings).free_bytes
    free = shutil.disk_usage(settings.home if settings.home.exists() else "/").free
    yield Finding(free >= wanted, "kept disk", f"{format_bytes(free)} are free")
    usable = [card for card in models if not card.problem]
    yield Finding(True, "kept models", f"{len(usable)} of {len(models)} can be loaded")
