"""What this distribution adds to LMX."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lmx_kernel.config.section import SettingsSection
from lmx_kernel.hookspecs import hookimpl
from lmx_responses_api.settings import ResponsesSettings

if TYPE_CHECKING:
    from lmx_kernel.interfaces import ApiSurface, Kernel


@hookimpl
def lmx_settings() -> list[SettingsSection]:
    """The section ``[responses_api]``."""
    return [SettingsSection("responses_api", ResponsesSettings)]


@hookimpl
def lmx_api_surfaces(kernel: Kernel) -> list[ApiSurface]:
    """The routes below ``/v1/responses``."""
    from lmx_responses_api.surface import ResponsesSurface  # noqa: PLC0415 - commands serve nothing

    return [ResponsesSurface(kernel, kernel.settings(ResponsesSettings))]
