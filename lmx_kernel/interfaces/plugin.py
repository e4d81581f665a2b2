"""What every plugin may bring: sections of the config, diagnostics, monitors; and its state."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Protocol

from attrs import frozen


@frozen
class SettingsSection:
    """A section of the config file.

    :param name: ``[name]`` in the file, ``LMX_NAME_KEY`` in the environment.
    :param cls: an attrs class whose every field has a default.
    """

    name: str
    cls: type[Any]


@frozen
class Finding:
    """One thing that `lmx doctor` looked at."""

    is_ok: bool
    subject: str
    text: str


class Monitor(Protocol):
    """Something that is looked at regularly."""

    name: str
    interval_s: float

    def sample(self) -> Mapping[str, float]:
        """Return current figures. Called in a thread."""
        ...


class PluginState(StrEnum):
    """What became of a plugin."""

    ACTIVE = "active"
    DISABLED = "disabled"
    FAILED = "failed"


@frozen(kw_only=True)
class PluginStatus:
    """A plugin, and why it is not active if it is not."""

    name: str
    distribution: str
    version: str
    state: PluginState
    reason: str = ""
    hooks: tuple[str, ...] = ()
