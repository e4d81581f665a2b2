"""The hooks of this plugin."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

from lmx_kernel.config.section import SettingsSection
from lmx_kernel.hookspecs import hookimpl
from lmx_model_folders.settings import FolderSettings

if TYPE_CHECKING:
    from lmx_kernel.config import Settings
    from lmx_kernel.interfaces import ModelSource


@hookimpl
def lmx_settings() -> Iterable[SettingsSection]:
    """Return the section ``[model_folders]``."""
    return [SettingsSection("model_folders", FolderSettings)]


@hookimpl
def lmx_model_sources(settings: Settings) -> Iterable[ModelSource]:
    """Return the sources that are enabled, with the names of their settings."""
    from lmx_model_folders.lm_studio import LMStudioSource  # noqa: PLC0415 - if models are asked for
    from lmx_model_folders.sources import (  # noqa: PLC0415 - as above
        FolderSource,
        HuggingFaceSource,
        hugging_face_cache,
    )

    chosen = settings.get(FolderSettings)
    sources: list[ModelSource] = []
    if chosen.home:
        sources.append(FolderSource("home", (settings.models_folder,), owned=True))
    if chosen.hugging_face:
        sources.append(HuggingFaceSource("hugging_face", hugging_face_cache(os.environ)))
    if chosen.lm_studio:
        sources.append(LMStudioSource("lm_studio"))
    # One for each, since one that hangs, on a dead network mount, has no models.
    for path in dict.fromkeys(chosen.paths):
        name = f"paths: {path}" if len(chosen.paths) > 1 else "paths"
        sources.append(FolderSource(name, (path,), owned=chosen.may_delete))
    return sources
