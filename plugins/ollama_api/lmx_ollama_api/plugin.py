"""What this distribution adds to LMX."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lmx_kernel.config.section import SettingsSection
from lmx_kernel.hookspecs import hookimpl
from lmx_ollama_api.settings import OllamaSettings

if TYPE_CHECKING:
    from lmx_kernel.interfaces import ApiSurface, Kernel


@hookimpl
def lmx_settings() -> list[SettingsSection]:
    """The section ``[ollama_api]``."""
    return [SettingsSection("ollama_api", OllamaSettings)]


@hookimpl
def lmx_api_surfaces(kernel: Kernel) -> list[ApiSurface]:
    """The routes below ``/api``; those that change the disk need a key of another scope."""
    from lmx_ollama_api import surface  # noqa: PLC0415 - commands serve nothing

    settings = kernel.settings(OllamaSettings)
    return [
        surface.OllamaSurface(kernel, settings),
        surface.PullSurface(kernel, settings),
        surface.DeleteSurface(kernel),
    ]
