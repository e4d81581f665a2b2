"""The hooks: how a plugin package registers what it adds.

A plugin is an installed distribution with an entry point in the group ``lmx``, whose module (or
object) has functions of these names, marked with :data:`hookimpl`. Hooks only register or notify;
behaviour is in the objects that they return. All of them are plain functions: a coroutine function
is refused at load. An implementation may leave out arguments that it does not need. No result
depends on the order of calls: selection is by name, from the config, and a clash of names is an
error that names both distributions.

The kernel-side modules of a plugin must not import an engine. The engine's own module is registered
separately, in the group ``lmx.worker`` under the backend's name; only the worker imports it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import pluggy
from attrs import frozen

if TYPE_CHECKING:  # plugins import this module, also where they only offer a command
    from collections.abc import Iterable, Sequence
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from cyclopts import App

    from lmx_kernel.config import Settings
    from lmx_kernel.engine.draft_rows import DraftRows
    from lmx_kernel.engine.protocol import Engine, ProgressCallback
    from lmx_kernel.errors import LmxError
    from lmx_kernel.events import KernelEvent
    from lmx_kernel.interfaces import (
        AnswerObserver,
        ApiSurface,
        Backend,
        Finding,
        HttpRequest,
        JobKind,
        Kernel,
        Log,
        Metrics,
        ModelSource,
        Monitor,
        Router,
        SettingsSection,
    )
    from lmx_kernel.types import EngineSpec, GenerationRequest, ModelCard


PROJECT = "lmx"
GROUP = "lmx"
WORKER_GROUP = "lmx.worker"
FORMAT_GROUP = "lmx.formats"
LOGITS_GROUP = "lmx.logits"
DRAFT_GROUP = "lmx.drafts"
TEMPLATE_GROUP = "lmx.templates"
CONSTRAINT_GROUP = "lmx.constraints"
CONSTRAINT_SECTION = "constraints"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@frozen(kw_only=True)
class Context:
    """What a plugin may use in any of its hooks but ``lmx_settings``, which is called before the
    config is read. All hooks of a plugin get the same one.

    :ivar plugin: the plugin's name.
    :ivar settings: the config.
    :ivar log: its lines name the plugin.
    :ivar metrics: of the plugin; they are dropped when it is disabled.
    """

    plugin: str
    settings: Settings
    log: Log
    metrics: Metrics

    @property
    def home(self) -> Path:
        """LMX's own folder."""
        return self.settings.home


class KernelSpecs(Protocol):
    """Hooks of the kernel process and of the command line."""

    @hookspec
    def lmx_settings(self) -> Iterable[SettingsSection]:
        """Sections of the config file that belong to this plugin.

        Called once, by the config loader, in the daemon and in the command line.
        On error: the plugin is disabled.
        """

    @hookspec
    def lmx_backends(self, settings: Settings, context: Context) -> Iterable[Backend]:
        """Backends: each recognises models on disk, and has the name of the engine that runs them.

        Called once, by the catalogue. On error: the plugin is disabled.
        """

    @hookspec
    def lmx_model_sources(self, settings: Settings, context: Context) -> Iterable[ModelSource]:
        """Sources of models on disk.

        Called once, by the catalogue. On error: the plugin is disabled.
        """

    @hookspec
    def lmx_routers(self, settings: Settings, context: Context) -> Iterable[Router]:
        """Routers, which choose the model of a request, in the order of ``routing.order``.

        Called once, by routing. On error: the plugin is disabled.
        """

    @hookspec
    def lmx_api_surfaces(self, kernel: Kernel, context: Context) -> Iterable[ApiSurface]:
        """API surfaces (HTTP dialects): routes below a prefix, and how errors are rendered there.

        Called once, by the HTTP server. On error: the plugin is disabled.
        """

    @hookspec
    def lmx_job_kinds(self, kernel: Kernel, context: Context) -> Iterable[JobKind]:
        """Kinds of long work, such as downloads.

        Called once, by the daemon. On error: the plugin is disabled.
        """

    @hookspec
    def lmx_monitors(self, settings: Settings, context: Context) -> Iterable[Monitor]:
        """Monitors, sampled at their own interval; samples become events.

        Called once, by the daemon. On error: the plugin is disabled; a monitor whose ``sample``
        fails three times in a row is muted.
        """

    @hookspec
    def lmx_lifespan(self, kernel: Kernel, context: Context) -> AbstractAsyncContextManager[None]:
        """An async context that is open while the daemon serves.

        Called once, by the daemon. On error: the plugin is disabled.
        """

    @hookspec(firstresult=True)
    def lmx_authorize(self, request: HttpRequest, context: Context) -> LmxError | None:
        """A reason to refuse an HTTP request, or None.

        Called for every request but those to the health routes, on the event loop, so it must be
        fast. On error: the request is refused (it fails closed).
        """

    @hookspec
    def lmx_transform(
        self, request: GenerationRequest, context: Context
    ) -> GenerationRequest | None:
        """The request to use instead, before a model is chosen for it and before it is queued; None
        for the same one. Raises LmxError to refuse it.

        Called for every request: those for embeddings, and those that only count a prompt
        (``max_tokens`` is 0). In a thread, so that it does not delay other requests; a call may
        take ``plugins.timeout_s``. Each plugin gets what the one before it by name returned. The
        same request must give the same result, since an answer may be continued after a restart.
        On error: the request is refused (it fails closed); so it is if the call takes too long.
        """

    @hookspec
    def lmx_observe(
        self, request: GenerationRequest, model: str, answer_id: str, context: Context
    ) -> AnswerObserver | None:
        """What sees the events of an answer; None if this one does not matter.

        Called on the event loop for every request that was queued, so it must be fast. Its
        observers are called in a thread. On error: ignored.
        """

    @hookspec
    def lmx_close(self, context: Context) -> None:
        """Give back what the plugin holds: files, connections, threads.

        Called in a thread, once the plugin is not used any more: it was disabled, or failed in
        another hook, or the daemon stops after all answers. May take ``plugins.timeout_s``.
        On error: ignored.
        """

    @hookspec
    def lmx_requires(self) -> Iterable[str]:
        """The names of plugins without which this one is of no use.

        Called when it is loaded. While one of them is not active, it is not either; and one that
        others require cannot be disabled. On error: the plugin is disabled.
        """

    @hookspec
    def lmx_event(self, event: KernelEvent, context: Context) -> None:
        """An event was published (see :mod:`lmx_kernel.events`).

        Called in a thread of the event bus, in order. On error: ignored and counted; an observer
        that fails three times in a row is muted.
        """

    @hookspec
    def lmx_findings(
        self, settings: Settings, models: Sequence[ModelCard], context: Context
    ) -> Iterable[Finding]:
        """Results of this plugin's checks of the machine and its models, for `lmx doctor`.

        Called once, in the command line's own process; may start a child process.
        On error: the plugin is reported as failed.
        """

    @hookspec
    def lmx_commands(self, context: Context) -> Iterable[App]:
        """Commands for the ``lmx`` command line (cyclopts apps), as the kernel's own are.

        Called once, in the command line's own process, unless the command is the kernel's own.
        On error: skipped; so is a command whose name is taken.
        """


class WorkerSpecs(Protocol):
    """Hooks of a worker process: only the plugin of the model's backend is loaded there."""

    @hookspec(firstresult=True)
    def lmx_open_engine(self, spec: EngineSpec, progress: ProgressCallback) -> Engine:
        """Open the model and return its engine, warmed up.

        Called once. On error: the load fails, with the reason; nothing else changes.
        """

    @hookspec(firstresult=True)
    def lmx_open_draft_model(self, spec: EngineSpec, progress: ProgressCallback) -> DraftRows:
        """Open the model to draft for the one that this worker serves, warmed up.

        Called once at most, after the engine was opened, where the owner or a request wants drafts
        of a model of the same backend. On error: the load fails, with the reason.
        """

    @hookspec(firstresult=True)
    def lmx_measure_memory(self, spec: EngineSpec) -> int | None:
        """The exact bytes that opening ``spec`` would take, without taking them; None if unknown.

        Called once in a child process of its own, when the estimate leaves the decision open.
        On error: the estimate is used.
        """
