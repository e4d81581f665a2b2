"""What this distribution adds to LMX."""

from __future__ import annotations

from lmx_kernel.hookspecs import hookimpl
from lmx_kernel.interfaces import ApiSurface, Kernel, SettingsSection
from lmx_openai_api.settings import OpenAISettings
from lmx_openai_api.surface import BARE_PREFIXES, BareSurface, OpenAISurface


@hookimpl
def lmx_settings() -> list[SettingsSection]:
    """The section ``[openai_api]``."""
    return [SettingsSection("openai_api", OpenAISettings)]


@hookimpl
def lmx_api_surfaces(kernel: Kernel) -> list[ApiSurface]:
    """The routes below ``/v1``, and those without it if the config wants them."""
    settings = kernel.settings(OpenAISettings)
    bare = BARE_PREFIXES if settings.bare_paths else ()
    return [
        OpenAISurface(kernel, settings),
        *(BareSurface(kernel, settings, prefix) for prefix in bare),
    ]
