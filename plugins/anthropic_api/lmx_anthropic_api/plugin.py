"""What this distribution adds to LMX."""

from __future__ import annotations

from lmx_anthropic_api.settings import AnthropicSettings
from lmx_anthropic_api.surface import AnthropicSurface
from lmx_kernel.hookspecs import hookimpl
from lmx_kernel.interfaces import ApiSurface, Kernel, SettingsSection


@hookimpl
def lmx_settings() -> list[SettingsSection]:
    """The section ``[anthropic_api]``."""
    return [SettingsSection("anthropic_api", AnthropicSettings)]


@hookimpl
def lmx_api_surfaces(kernel: Kernel) -> list[ApiSurface]:
    """The routes below ``/v1/messages``."""
    return [AnthropicSurface(kernel, kernel.settings(AnthropicSettings))]
