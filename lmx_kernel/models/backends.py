"""The backends by name, each with its own section of the config."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import structlog
from attrs import define, field
from cattrs import unstructure

from lmx_kernel.config import Settings
from lmx_kernel.errors import ModelUnusableError
from lmx_kernel.interfaces import Backend, SettingsSection
from lmx_kernel.types import DeviceMemory

log = structlog.get_logger(__name__)


@define
class Backends:
    """The active backends.

    :param all: returns the current backends, in the order of their plugins.
    :param sections: the sections of the config.
    :ivar devices: the memory of the devices that models are loaded into, after
        :meth:`probe_devices`; none if models use the machine's own.
    """

    all: Callable[[], Sequence[Backend]]
    sections: Iterable[SettingsSection]
    settings: Settings
    devices: tuple[DeviceMemory, ...] = field(default=(), init=False)

    def probe_devices(self) -> None:
        """Ask each backend for the memory of its device. Slow: call it in a thread."""
        found = []
        for backend in self.all():
            try:
                found.append(backend.device_memory(self.settings_of(backend.name)))
            # Backends are code of plugins: they may fail in any way, and the others still count.
            except (Exception, SystemExit):
                log.exception("device_unknown", backend=backend.name)
        self.devices = tuple(device for device in found if device is not None)

    def get(self, name: str) -> Backend:
        """Return a backend.

        :raises ModelUnusableError: its plugin is not active any more.
        """
        for backend in self.all():
            if backend.name == name:
                return backend
        raise ModelUnusableError(f"no plugin offers the backend {name}")

    def engine_module_of(self, name: str) -> str:
        """Return the module that a backend itself names for its engine; "" if it names none."""
        modules = (getattr(one, "engine_module", "") for one in self.all() if one.name == name)
        return next(modules, "")

    def settings_of(self, name: str) -> dict[str, Any]:
        """Return the section with the backend's name, as plain data for its worker."""
        for section in self.sections:
            if section.name == name:
                settings: dict[str, Any] = unstructure(self.settings.get(section.cls))
                return settings
        return {}
