"""What this distribution adds to LMX."""

from __future__ import annotations

from lmx_kernel.hookspecs import hookimpl
from lmx_kernel.interfaces import ApiSurface, Kernel, SettingsSection
from lmx_lmstudio_api.settings import LMStudioSettings
from lmx_lmstudio_api.v0.surface import LMStudioV0
from lmx_lmstudio_api.v1.surface import surfaces
from lmx_lmstudio_api.websocket.surface import LMStudioWebSockets


@hookimpl
def lmx_settings() -> list[SettingsSection]:
    """The section ``[lmstudio_api]``."""
    return [SettingsSection("lmstudio_api", LMStudioSettings)]


@hookimpl
def lmx_api_surfaces(kernel: Kernel) -> list[ApiSurface]:
    """The routes below ``/api/v0`` and ``/api/v1``, and the websockets of LM Studio's SDKs."""
    settings = kernel.settings(LMStudioSettings)
    return [
        LMStudioV0(kernel, settings),
        *surfaces(kernel, settings),
        LMStudioWebSockets(kernel, settings),
    ]
