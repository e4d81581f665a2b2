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

log = structlog.get_logger(__name__)


@define
class Backends:
    """Finds backends by name.

    :param all: returns the backends there are now, in the order of their plugins.
    :param sections: of the config.
    :ivar device_bytes: the memory of the smallest device with its own, once it was queried; None
        where models take the machine's.
    """

    all: Callable[[], Sequence[Backend]]
    sections: Iterable[SettingsSection]
    settings: Settings
    device_bytes: int | None = field(default=None, init=False)

    def look_at_devices(self) -> None:
        """Query the device of each backend. Blocks; call in a thread."""
        sizes = []
        for backend in self.all():
            try:
                sizes.append(backend.device_bytes(self.settings_of(backend.name)))
            # A backend is a plugin's: it may fail in any way, and the others still count.
            except (Exception, SystemExit):
                log.exception("device_unknown", backend=backend.name)
        self.device_bytes = min((size for size in sizes if size), default=None)

    def get(self, name: str) -> Backend:
        """Return a backend.

        :raises ModelUnusableError: its plugin is not active any more.
        """
        for backend in self.all():
            if backend.name == name:
                return backend
        raise ModelUnusableError(f"no plugin offers the backend {name}")

    def settings_of(self, name: str) -> dict[str, Any]:
        """Return the section that is named as the backend, as plain data for its worker."""
        for section in self.sections:
            if section.name == name:
                settings: dict[str, Any] = unstructure(self.settings.get(section.cls))
                return settings
        return {}
