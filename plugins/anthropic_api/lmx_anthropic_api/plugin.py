"""What this distribution adds to LMX."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lmx_anthropic_api.settings import AnthropicSettings
from lmx_kernel.config.section import SettingsSection
from lmx_kernel.hookspecs import hookimpl

if TYPE_CHECKING:
    from lmx_kernel.interfaces import ApiSurface, Kernel


@hookimpl
def lmx_settings() -> list[SettingsSection]:
    """The section ``[anthropic_api]``."""
    return [SettingsSection("anthropic_api", AnthropicSettings)]


@hookimpl
def lmx_api_surfaces(kernel: Kernel) -> list[ApiSurface]:
    """The routes below ``/v1/messages``."""
    from lmx_anthropic_api.surface import AnthropicSurface  # noqa: PLC0415 - commands serve nothing

    return [AnthropicSurface(kernel, kernel.settings(AnthropicSettings))]
