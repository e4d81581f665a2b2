"""What this distribution adds to LMX."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from lmx_kernel.config.section import SettingsSection
from lmx_kernel.hookspecs import hookimpl
from lmx_lmstudio_api.settings import LMStudioSettings

if TYPE_CHECKING:
    from cyclopts import App

    from lmx_kernel.config import Settings
    from lmx_kernel.interfaces import ApiSurface, Finding, Kernel
    from lmx_kernel.types import ModelCard


@hookimpl
def lmx_requires() -> Iterable[str]:
    """OpenAI's API, whose chat completions and embeddings are served here below another prefix."""
    return ["openai_api"]


@hookimpl
def lmx_settings() -> list[SettingsSection]:
    """The section ``[lmstudio_api]``."""
    return [SettingsSection("lmstudio_api", LMStudioSettings)]


@hookimpl
def lmx_findings(settings: Settings, models: Sequence[ModelCard]) -> Iterable[Finding]:
    """What there is of an LM Studio on this machine."""
    from lmx_lmstudio_api.findings import examine  # noqa: PLC0415 - the daemon does not ask

    return examine(settings, models)


@hookimpl
def lmx_commands() -> Iterable[App]:
    """``lmx lms``."""
    from lmx_lmstudio_api.lms.command import app  # noqa: PLC0415 - the daemon needs no commands

    return [app]


@hookimpl
def lmx_api_surfaces(kernel: Kernel) -> list[ApiSurface]:
    """The routes of both versions, the greeting, and the websockets of LM Studio's SDKs."""
    from lmx_lmstudio_api.surfaces import all_surfaces  # noqa: PLC0415 - commands serve nothing

    return all_surfaces(kernel, kernel.settings(LMStudioSettings))
