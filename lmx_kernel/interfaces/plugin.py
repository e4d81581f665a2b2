"""What any plugin may have: sections of the config, diagnostics, monitors; and its state."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Protocol

from attrs import frozen


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
        """Return current figures, all of them numbers. Called in a thread."""
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
    """Whether a plugin is in use, and how it does.

    In use are also DEGRADED (a call of it failed lately, or held up requests), MUTED (some of its
    hooks are not called any more) and OUTDATED (another version is installed than the one that
    runs).
    """

    ACTIVE = "active"
    DEGRADED = "degraded"
    MUTED = "muted"
    OUTDATED = "outdated"
    DISABLED = "disabled"
    FAILED = "failed"


@frozen(kw_only=True)
class HookTimes:
    """How long the calls of one hook of a plugin, or of one object that it returned, took.

    :ivar hook: such as ``lmx_authorize``, or ``NAME.sample`` for a monitor.
    :ivar failures: how many of the calls raised.
    """

    hook: str
    calls: int
    failures: int
    mean_ms: float
    worst_ms: float


@frozen(kw_only=True)
class HookCall:
    """One call of a plugin.

    :ivar id: counts the calls of all plugins.
    :ivar at: when it ended, in seconds since the epoch.
    :ivar hook: as in :class:`HookTimes`.
    :ivar error: what it raised; "" if it did not.
    """

    id: int
    at: float
    hook: str
    took_ms: float
    error: str = ""


@frozen(kw_only=True)
class PluginStatus:
    """A plugin, its state, and the reason if it is not simply active.

    :ivar version: the one that was imported, which may not be the one on disk.
    :ivar installed_version: the one on disk, where it is another; "" if it is the same.
    :ivar last_error: of its calls since the start; "" for none.
    """

    name: str
    distribution: str
    version: str
    state: PluginState
    reason: str = ""
    hooks: tuple[str, ...] = ()
    installed_version: str = ""
    last_error: str = ""
    times: tuple[HookTimes, ...] = ()

    @property
    def is_in_use(self) -> bool:
        """Whether its hooks are called."""
        return self.state not in (PluginState.DISABLED, PluginState.FAILED)
