"""Samples the load of the machine and the free space of LMX's disk."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from attrs import field, frozen, validators

from lmx_kernel.api import Monitor, Settings, SettingsSection, hookimpl


@frozen(kw_only=True)
class KeptSettings:
    """Section ``[kept]``.

    :ivar interval_s: the time between two samples.
    """

    interval_s: float = field(default=10.0, validator=validators.ge(1))


@frozen
class Kept:
    """Its figures are in ``/metrics``, and in the event ``Sampled``."""

    interval_s: float
    home: Path
    name: str = "kept"

    def sample(self) -> Mapping[str, float]:
        """Return the figures of now. Called in a thread."""
        place = next(path for path in (self.home, *self.home.parents) if path.exists())
        return {"load_1m": os.getloadavg()[0], "free_bytes": shutil.disk_usage(place).free}


@hookimpl
def lmx_settings() -> Iterable[SettingsSection]:
    """The section ``[kept]``."""
    return [SettingsSection("kept", KeptSettings)]


@hookimpl
def lmx_monitors(settings: Settings) -> Iterable[Monitor]:
    """Called once."""
    return [Kept(settings.get(KeptSettings).interval_s, settings.home)]
