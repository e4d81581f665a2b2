"""The hooks: how a plugin package registers what it adds.

A plugin is an installed distribution with an entry point in the group ``lmx``, whose module (or
object) has functions of these names, marked with :data:`hookimpl`. Hooks only register or notify;
behaviour is in the objects that they return. All of them are plain functions: a coroutine function
is refused at load. No result depends on the order of calls: selection is by name, from the config,
and a clash of names is an error that names both distributions.

The kernel-side modules of a plugin must not import an engine. The engine's own module is registered
separately, in the group ``lmx.worker`` under the backend's name; only the worker imports it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Protocol

import pluggy

from lmx_kernel.config import Settings
from lmx_kernel.engine.protocol import Engine, ProgressCallback
from lmx_kernel.errors import LmxError
from lmx_kernel.events import KernelEvent
from lmx_kernel.interfaces import (
    ApiSurface,
    Backend,
    Finding,
    HttpRequest,
    JobKind,
    Kernel,
    ModelSource,
    Monitor,
    Router,
    SettingsSection,
)
from lmx_kernel.types import EngineSpec, ModelCard

if TYPE_CHECKING:
    from cyclopts import App


API = (1, 0)
"""The version of what plugins build on, :mod:`lmx_kernel.api`: major and minor. A later minor only
adds; a plugin that is made for another major, or for a later minor, is not loaded.
"""

PROJECT = "lmx"
GROUP = "lmx"
API_GROUP = "lmx.api"
WORKER_GROUP = "lmx.worker"
FORMAT_GROUP = "lmx.formats"
CONSTRAINT_GROUP = "lmx.constraints"
CONSTRAINT_SECTION = "constraints"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


class KernelSpecs(Protocol):
    """Hooks of the kernel process and of the command line."""

    @hookspec
    def lmx_settings(self) -> Iterable[SettingsSection]:
        """Sections of the config file that belong to this plugin.

        Called once, by the config loader, in the daemon and in the command line.
        On error: the plugin is disabled.
        """

    @hookspec
    def lmx_backends(self, settings: Settings) -> Iterable[Backend]:
        """Backends: each recognises models on disk, and has the name of the engine that runs them.

        Called once, by the catalogue. On error: the plugin is disabled.
        """

    @hookspec
    def lmx_model_sources(self, settings: Settings) -> Iterable[ModelSource]:
        """Sources of models on disk.

        Called once, by the catalogue. On error: the plugin is disabled.
        """

    @hookspec
    def lmx_routers(self, settings: Settings) -> Iterable[Router]:
        """Routers, which choose the model of a request, in the order of ``routing.order``.

        Called once, by routing. On error: the plugin is disabled.
        """

    @hookspec
    def lmx_api_surfaces(self, kernel: Kernel) -> Iterable[ApiSurface]:
        """API surfaces (HTTP dialects): routes below a prefix, and how errors are rendered there.

        Called once, by the HTTP server. On error: the plugin is disabled.
        """

    @hookspec
    def lmx_job_kinds(self, kernel: Kernel) -> Iterable[JobKind]:
        """Kinds of long work, such as downloads.

        Called once, by the daemon. On error: the plugin is disabled.
        """

    @hookspec
    def lmx_monitors(self, settings: Settings) -> Iterable[Monitor]:
        """Monitors, sampled at their own interval; samples become events.

        Called once, by the daemon. On error: the plugin is disabled; a monitor whose ``sample``
        fails three times in a row is muted.
        """

    @hookspec
    def lmx_lifespan(self, kernel: Kernel) -> AbstractAsyncContextManager[None]:
        """An async context that is open while the daemon serves.

        Called once, by the daemon. On error: the plugin is disabled.
        """

    @hookspec(firstresult=True)
    def lmx_authorize(self, request: HttpRequest) -> LmxError | None:
        """A reason to refuse an HTTP request, or None.

        Called for every request but those to the health routes, on the event loop, so it must be
        fast. On error: the request is refused (it fails closed).
        """

    @hookspec
    def lmx_event(self, event: KernelEvent) -> None:
        """An event was published (see :mod:`lmx_kernel.events`).

        Called in a thread of the event bus, in order. On error: ignored and counted; an observer
        that fails three times in a row is muted.
        """

    @hookspec
    def lmx_findings(self, settings: Settings, models: Sequence[ModelCard]) -> Iterable[Finding]:
        """Results of this plugin's checks of the machine and its models, for `lmx doctor`.

        Called once, in the command line's own process; may start a child process.
        On error: the plugin is reported as failed.
        """

    @hookspec
    def lmx_commands(self) -> Iterable[App]:
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
    def lmx_measure_memory(self, spec: EngineSpec) -> int | None:
        """The exact bytes that opening ``spec`` would take, without taking them; None if unknown.

        Called once in a child process of its own, when the estimate leaves the decision open.
        On error: the estimate is used.
        """
