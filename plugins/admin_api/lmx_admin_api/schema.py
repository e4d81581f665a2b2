"""What clients send and get: one definition that parses, validates and documents it.

A field that is not listed is refused.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from attrs import field, frozen
from msgspec import Meta

from lmx_kernel.interfaces import HookCall, Job, KernelStatus, ModelStatus, PluginStatus
from lmx_kernel.types import Admission, LoadOverrides, Route

Name = Annotated[str, Meta(min_length=1, max_length=512)]
Tokens = Annotated[int, Meta(ge=16, le=2**31 - 1)]
Parallel = Annotated[int, Meta(ge=1, le=256)]
Seconds = Annotated[float, Meta(gt=0, le=10**9)]
Limit = Annotated[int, Meta(ge=1, le=10_000)]
Level = Literal["debug", "info", "warning", "error"]

# --- what is sent --------------------------------------------------------------------------------


@frozen(kw_only=True)
class EstimateBody:
    """A model, and how it would be loaded.

    :ivar context_length: tokens that one request may use; absent leaves it to the config.
    :ivar parallel: requests that run at once; absent leaves it to the config.
    :ivar backend: where several could run the model.
    """

    model: Name
    context_length: Tokens | None = None
    parallel: Parallel | None = None
    backend: Name | None = None

    @property
    def overrides(self) -> LoadOverrides:
        """What differs from the config."""
        return LoadOverrides(context_length=self.context_length, parallel=self.parallel)


@frozen(kw_only=True)
class LoadBody(EstimateBody):
    """A model, and how it is to be loaded.

    :ivar ttl_s: unload it after so long without a request; absent never does.
    :ivar pin: never unload it to make room for another.
    :ivar wait: for the load to end; else it is only begun.
    """

    ttl_s: Seconds | None = None
    pin: bool = False
    wait: bool = True

    @property
    def overrides(self) -> LoadOverrides:
        """What differs from the config."""
        return LoadOverrides(
            context_length=self.context_length,
            parallel=self.parallel,
            ttl_s=self.ttl_s,
            pinned=self.pin,
        )


@frozen(kw_only=True)
class ModelBody:
    """A model."""

    model: Name


@frozen(kw_only=True)
class ModelsQuery:
    """What to tell of models.

    :ivar fit: whether each could be loaded now.
    """

    fit: bool = True


@frozen(kw_only=True)
class LimitQuery:
    """How many to list.

    :ivar limit: the newest ones.
    """

    limit: Limit = 100


@frozen(kw_only=True)
class JobsQuery(LimitQuery):
    """Which jobs to list.

    :ivar kind: such as ``download``; absent for all.
    """

    kind: str | None = None


@frozen(kw_only=True)
class StartBody:
    """A job.

    :ivar kind: such as ``download``; active plugins offer kinds.
    :ivar spec: what to do, as that kind wants it described.
    """

    kind: Name
    spec: dict[str, Any]


@frozen(kw_only=True)
class EventsQuery:
    """Which events to tell.

    :ivar types: with commas between them, such as ``model_loaded,job_changed``; absent for all.
    """

    types: str = ""


@frozen(kw_only=True)
class LogsQuery:
    """Which lines of the log to return.

    :ivar limit: the newest ones.
    :ivar level: the least one.
    :ivar since: with a time zone.
    """

    limit: Limit = 100
    level: Level = "debug"
    event: str | None = None
    model: str | None = None
    request_id: str | None = None
    since: Annotated[datetime, Meta(tz=True)] | None = None


# --- what comes back -----------------------------------------------------------------------------


@frozen(kw_only=True)
class PluginVersion:
    """A plugin that is active."""

    name: str
    distribution: str
    version: str


@frozen(kw_only=True)
class Status(KernelStatus):
    """The daemon at a glance.

    :ivar addresses: the URLs of all addresses that it listens on.
    """

    addresses: tuple[str, ...]
    python: str
    platform: str
    plugins: tuple[PluginVersion, ...]


@frozen(kw_only=True)
class Estimate(Admission):
    """Whether a model could be loaded now, and what that would take.

    :ivar needed_bytes: of memory, all parts of the estimate together.
    """

    fits: bool
    needed_bytes: int


@frozen(kw_only=True)
class ModelInfo:
    """A model on disk.

    :ivar context_length: in tokens, as trained.
    :ivar problem: why it cannot be loaded, now or at all.
    :ivar warning: what is odd about its files although it can be loaded.
    :ivar aliases: further names that it answers to.
    :ivar fits: whether it could be loaded now; null where that was not asked.
    :ivar estimate: of a load as the config has it, unless it cannot be used.
    :ivar status: null if it was not asked for since the start.
    """

    id: str
    backend: str
    format: str
    architecture: str
    size_bytes: int
    context_length: int
    quantization: str | None
    capabilities: tuple[str, ...]
    problem: str | None
    warning: str | None
    aliases: tuple[str, ...]
    fits: bool | None
    estimate: Estimate | None
    status: ModelStatus | None


@frozen(kw_only=True)
class ModelList:
    """All models on disk."""

    models: tuple[ModelInfo, ...]


@frozen(kw_only=True)
class ModelState:
    """What became of a model that is being loaded, or was unloaded."""

    model: str
    state: Literal["loading", "unloaded"]


@frozen(kw_only=True)
class DeletedState:
    """What became of a model that was deleted.

    :ivar left: names of files beside it that are no model's; they stay, and so does the folder.
    """

    model: str
    state: Literal["deleted"] = "deleted"
    left: tuple[str, ...]


@frozen(kw_only=True)
class JobList:
    """Jobs, the newest first."""

    jobs: tuple[Job, ...]


@frozen(kw_only=True)
class PluginList:
    """Plugins, and why one is not active if it is not."""

    plugins: tuple[PluginStatus, ...]


@frozen(kw_only=True)
class PluginDetail:
    """A plugin, and its last calls, the oldest first."""

    plugin: PluginStatus
    calls: tuple[HookCall, ...]


@frozen(kw_only=True)
class DecisionList:
    """Where the last requests went and why, the newest first."""

    decisions: tuple[Route, ...]


@frozen(kw_only=True)
class ConfigView:
    """The config in force; secrets are masked.

    :ivar values: by section and key.
    :ivar live: the keys that may be changed while the daemon runs, by section.
    :ivar needs_restart: keys of the file that differ, and count at the next start.
    """

    values: dict[str, dict[str, Any]]
    live: dict[str, tuple[str, ...]]
    needs_restart: tuple[str, ...] = ()


@frozen(kw_only=True)
class LogLines:
    """Lines of the log, the oldest first."""

    lines: list[dict[str, Any]]


@frozen(kw_only=True)
class EventFrame:
    """One event of the kernel.

    :ivar id: counts the events of this stream, from 1.
    :ivar type: such as ``model_loaded``; ``dropped`` says that a slow reader lost ``count`` events.
    :ivar at: seconds since the epoch.
    :ivar data: the event's own fields.
    """

    id: int
    type: str
    at: float
    data: dict[str, Any] = field(factory=dict)
