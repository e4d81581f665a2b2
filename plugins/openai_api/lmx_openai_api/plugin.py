"""What this distribution adds to LMX."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lmx_kernel.config.section import SettingsSection
from lmx_kernel.hookspecs import hookimpl
from lmx_openai_api.settings import OpenAISettings

if TYPE_CHECKING:
    from lmx_kernel.interfaces import ApiSurface, Kernel


@hookimpl
def lmx_settings() -> list[SettingsSection]:
    """The section ``[openai_api]``."""
    return [SettingsSection("openai_api", OpenAISettings)]


@hookimpl
def lmx_api_surfaces(kernel: Kernel) -> list[ApiSurface]:
    """The routes below ``/v1``, and those without it if the config wants them."""
    from lmx_openai_api import surface  # noqa: PLC0415 - commands serve nothing

    settings = kernel.settings(OpenAISettings)
    bare = surface.BARE_PREFIXES if settings.bare_paths else ()
    return [
        surface.OpenAISurface(kernel, settings),
        *(surface.BareSurface(kernel, settings, prefix) for prefix in bare),
    ]
