"""What any plugin may have: sections of the config, diagnostics, monitors; and its state."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Protocol

from attrs import frozen


@frozen
class SettingsSection:
    """A section of the config file.

    :param name: ``[name]`` in the file, ``LMX_NAME_KEY`` in the environment.
    :param cls: an attrs class whose fields all have defaults.
    """

    name: str
    cls: type[Any]


@frozen
class Finding:
    """The result of one check of `lmx doctor`.

    :param subject: what was checked.
    """

    is_ok: bool
    subject: str
    text: str


class Monitor(Protocol):
    """Something that is sampled regularly."""

    name: str
    interval_s: float

    def sample(self) -> Mapping[str, float]:
        """Return current figures. Called in a thread."""
        ...


class Log(Protocol):
    """The log, for one plugin: a line has an event's name, such as ``quota_exceeded``, and fields.
    Never log prompts, answers or secrets.
    """

    def debug(self, event: str, **fields: Any) -> None: ...

    def info(self, event: str, **fields: Any) -> None: ...

    def warning(self, event: str, **fields: Any) -> None: ...

    def error(self, event: str, **fields: Any) -> None: ...

    def exception(self, event: str, **fields: Any) -> None:
        """Write an error with the traceback of the exception that is being handled."""
        ...


class PluginState(StrEnum):
    """Whether a plugin is in use."""

    ACTIVE = "active"
    DISABLED = "disabled"
    FAILED = "failed"


@frozen(kw_only=True)
class PluginStatus:
    """A plugin, its state, and the reason if it is not active."""

    name: str
    distribution: str
    version: str
    state: PluginState
    reason: str = ""
    hooks: tuple[str, ...] = ()
