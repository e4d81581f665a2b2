"""All that this distribution serves."""

from __future__ import annotations

from lmx_kernel.interfaces import ApiSurface, Kernel
from lmx_lmstudio_api.greeting import Greeting
from lmx_lmstudio_api.settings import LMStudioSettings
from lmx_lmstudio_api.v0.surface import LMStudioV0
from lmx_lmstudio_api.v1.surface import surfaces
from lmx_lmstudio_api.websocket.surface import LMStudioWebSockets


def all_surfaces(kernel: Kernel, settings: LMStudioSettings) -> list[ApiSurface]:
    """Return both versions, the greeting, and the websockets of LM Studio's SDKs."""
    return [
        Greeting(),
        LMStudioV0(kernel, settings),
        *surfaces(kernel, settings),
        LMStudioWebSockets(kernel, settings),
    ]
