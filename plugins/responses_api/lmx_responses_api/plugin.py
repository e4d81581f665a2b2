"""What this distribution adds to LMX."""

from __future__ import annotations

from lmx_kernel.hookspecs import hookimpl
from lmx_kernel.interfaces import ApiSurface, Kernel, SettingsSection
from lmx_responses_api.settings import ResponsesSettings
from lmx_responses_api.surface import ResponsesSurface


@hookimpl
def lmx_settings() -> list[SettingsSection]:
    """The section ``[responses_api]``."""
    return [SettingsSection("responses_api", ResponsesSettings)]


@hookimpl
def lmx_api_surfaces(kernel: Kernel) -> list[ApiSurface]:
    """The routes below ``/v1/responses``."""
    return [ResponsesSurface(kernel, kernel.settings(ResponsesSettings))]
