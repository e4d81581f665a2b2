"""What this distribution adds to LMX."""

from __future__ import annotations

from lmx_kernel.hookspecs import hookimpl
from lmx_kernel.interfaces import ApiSurface, Kernel, SettingsSection
from lmx_ollama_api.settings import OllamaSettings
from lmx_ollama_api.surface import DeleteSurface, OllamaSurface, PullSurface


@hookimpl
def lmx_settings() -> list[SettingsSection]:
    """The section ``[ollama_api]``."""
    return [SettingsSection("ollama_api", OllamaSettings)]


@hookimpl
def lmx_api_surfaces(kernel: Kernel) -> list[ApiSurface]:
    """The routes below ``/api``; those that change the disk need a key of another scope."""
    settings = kernel.settings(OllamaSettings)
    return [OllamaSurface(kernel, settings), PullSurface(kernel, settings), DeleteSurface(kernel)]
