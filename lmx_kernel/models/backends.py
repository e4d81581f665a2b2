"""The backends by name, each with its own section of the config."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from cattrs import unstructure

from lmx_kernel.config import Settings
from lmx_kernel.errors import ModelUnusableError
from lmx_kernel.interfaces import Backend, SettingsSection


class Backends:
    """What can be loaded at all.

    :ivar all: the backends, in the order of their plugins.
    """

    def __init__(
        self, backends: Sequence[Backend], sections: Iterable[SettingsSection], settings: Settings
    ) -> None:
        self.all = backends
        self._by_name = {backend.name: backend for backend in backends}
        self._settings: dict[str, dict[str, Any]] = {
            section.name: unstructure(settings.get(section.cls))
            for section in sections
            if section.name in self._by_name
        }

    def get(self, name: str) -> Backend:
        """Return a backend.

        :raises ModelUnusableError: its plugin is not active any more.
        """
        try:
            return self._by_name[name]
        except KeyError:
            raise ModelUnusableError(f"no plugin offers the backend {name}") from None

    def settings_of(self, name: str) -> dict[str, Any]:
        """Return the section that is named as the backend, as plain data for its worker."""
        return self._settings.get(name, {})
