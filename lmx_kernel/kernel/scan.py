"""The models on disk, for commands too, which need no more of the kernel."""

from __future__ import annotations

from functools import partial

from lmx_kernel.kernel.boot import Booted
from lmx_kernel.models.backends import Backends
from lmx_kernel.models.catalogue import Catalogue
from lmx_kernel.models.saved_settings import SavedSettings, saved_file
from lmx_kernel.runtime.effective_settings import EffectiveSettings


def scan(booted: Booted) -> Catalogue:
    """Return the models on disk, after one scan. Slow: it reads the headers of all files."""
    settings, backends = booted.settings, make_backends(booted)
    effective = EffectiveSettings(settings, backends, SavedSettings(saved_file(settings.home)))
    catalogue = make_catalogue(booted, backends, effective)
    catalogue.scan()
    return catalogue


def make_backends(booted: Booted) -> Backends:
    """Return the backends of all plugins."""
    return Backends(
        partial(booted.plugins.backends, booted.settings), booted.sections, booted.settings
    )


def make_catalogue(booted: Booted, backends: Backends, effective: EffectiveSettings) -> Catalogue:
    """Return the catalogue of the models in the sources of all plugins, before its first scan."""
    sources = partial(booted.plugins.model_sources, booted.settings)
    return Catalogue(sources, backends.all, effective, booted.plugins.watch)
