"""The backends by name, each with its own section of the config."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from attrs import frozen
from cattrs import unstructure

from lmx_kernel.config import Settings
from lmx_kernel.errors import ModelUnusableError
from lmx_kernel.interfaces import Backend, SettingsSection


@frozen
class Backends:
    """What can be loaded at all.

    :param all: asks for the backends there are now, in the order of their plugins.
    :param sections: of the config.
    """

    all: Callable[[], Sequence[Backend]]
    sections: Iterable[SettingsSection]
    settings: Settings

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
