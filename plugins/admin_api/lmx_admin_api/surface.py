"""The admin API as the kernel's HTTP server sees it."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from lmx_admin_api.routes.config import Config, ReloadConfig, Values
from lmx_admin_api.routes.decisions import Decisions
from lmx_admin_api.routes.events import Events
from lmx_admin_api.routes.jobs import (
    Action,
    AllJobs,
    ChangeJob,
    Downloads,
    JobsOfKind,
    OneJob,
    StartJob,
)
from lmx_admin_api.routes.logs import Logs
from lmx_admin_api.routes.models import (
    Estimates,
    Load,
    ModelOrSettings,
    Models,
    RescanModels,
    Unload,
)
from lmx_admin_api.routes.plugins import ChangePlugin, OnePlugin, Plugins, RescanPlugins
from lmx_admin_api.routes.route import ExplainRoute
from lmx_admin_api.routes.status import StatusPage
from lmx_admin_api.schema import (
    ConfigView,
    DecisionList,
    DeletedState,
    Estimate,
    EstimateBody,
    EventFrame,
    EventsQuery,
    JobList,
    JobsQuery,
    LimitQuery,
    LoadBody,
    LogLines,
    LogsQuery,
    ModelBody,
    ModelInfo,
    ModelList,
    ModelsQuery,
    ModelState,
    PluginDetail,
    PluginList,
    StartBody,
    Status,
)
from lmx_admin_api.settings import AdminSettings
from lmx_kernel.dialect.error_object import default_error_body
from lmx_kernel.errors import LmxError, NotFoundError
from lmx_kernel.interfaces import (
    Job,
    Kernel,
    ModelSettingsView,
    ModelStatus,
    Operation,
    PluginStatus,
    RouteQuery,
)
from lmx_kernel.types import Route

ACTIONS: dict[Action, str] = {
    "pause": "Stop it for now",
    "resume": "Go on with it",
    "cancel": "Stop it for good",
}


class AdminSurface:
    """Everything below ``/admin``."""

    name = "admin"
    prefix = "/admin"
    scope = "admin"

    def __init__(self, kernel: Kernel, settings: AdminSettings) -> None:
        self._kernel = kernel
        self._settings = settings

    def routes(self) -> Iterable[tuple[str, object]]:
        """Return pairs of a falcon URI template and a resource."""
        kernel = self._kernel
        return [
            ("/admin/status", StatusPage(kernel)),
            ("/admin/models", Models(kernel)),
            ("/admin/models/load", Load(kernel)),
            ("/admin/models/unload", Unload(kernel)),
            ("/admin/models/estimate", Estimates(kernel)),
            ("/admin/models/rescan", RescanModels(kernel)),
            ("/admin/models/convert", StartJob(kernel, "convert")),
            ("/admin/models/{id:path}", ModelOrSettings(kernel)),
            ("/admin/downloads", Downloads(kernel, "download")),
            ("/admin/downloads/{id}", OneJob(kernel, "download")),
            *(
                (f"/admin/downloads/{{id}}/{action}", ChangeJob(kernel, action, "download"))
                for action in ACTIONS
            ),
            ("/admin/benchmark", StartJob(kernel, "benchmark")),
            ("/admin/benchmarks", JobsOfKind(kernel, "benchmark")),
            ("/admin/jobs", AllJobs(kernel)),
            ("/admin/jobs/{id}", OneJob(kernel)),
            *((f"/admin/jobs/{{id}}/{action}", ChangeJob(kernel, action)) for action in ACTIONS),
            ("/admin/events", Events(kernel, self._settings)),
            ("/admin/route", ExplainRoute(kernel)),
            ("/admin/decisions", Decisions(kernel)),
            ("/admin/config", Config(kernel)),
            ("/admin/config/reload", ReloadConfig(kernel)),
            ("/admin/plugins", Plugins(kernel)),
            ("/admin/plugins/rescan", RescanPlugins(kernel)),
            ("/admin/plugins/{name}", OnePlugin(kernel)),
            ("/admin/plugins/{name}/enable", ChangePlugin(kernel, "enable")),
            ("/admin/plugins/{name}/disable", ChangePlugin(kernel, "disable")),
            ("/admin/plugins/{name}/reload", ChangePlugin(kernel, "reload")),
            ("/admin/logs", Logs(kernel)),
        ]

    def operations(self) -> Iterable[Operation]:
        """Return what each route takes and gives."""
        return [*self._on_models(), *self._on_jobs(), *_on_the_daemon()]

    def render_error(self, error: LmxError) -> Mapping[str, Any]:
        """Return message, type, param and code."""
        return default_error_body(error)

    def example(self, url: str, model: str) -> str:
        """Return a line to try in a shell."""
        body = msgspec.json.encode({"model": model}).decode()
        return f"curl {url}/admin/models/load -d {shlex.quote(body)}"

    def _on_models(self) -> Iterable[Operation]:
        at = "/admin/models"
        yield _get(at, "List the models on disk", ModelList, query=ModelsQuery)
        yield _get(f"{at}/{{id:path}}", "Show a model", ModelInfo, query=ModelsQuery)
        yield Operation(
            method="DELETE",
            path=f"{at}/{{id:path}}",
            summary="Delete a model from disk; never while it is loaded",
            result=DeletedState,
        )
        yield from _on_settings(f"{at}/{{id:path}}/settings")
        yield Operation(
            method="POST",
            path=f"{at}/load",
            summary="Load a model, and return when it is ready, or at once",
            body=LoadBody,
            result=ModelStatus,
            accepted=ModelState,
        )
        yield _post(f"{at}/unload", "Unload a model", ModelState, body=ModelBody)
        yield _post(f"{at}/estimate", "Say what a load would take", Estimate, body=EstimateBody)
        yield _post(f"{at}/rescan", "Look at the disk, now", ModelList)
        yield self._start(f"{at}/convert", "Convert a model", "convert")

    def _on_jobs(self) -> Iterable[Operation]:
        yield self._start("/admin/downloads", "Download a model", "download")
        yield _get("/admin/downloads", "List the downloads", JobList, query=LimitQuery)
        yield self._start("/admin/benchmark", "Measure how fast a model is", "benchmark")
        yield _get("/admin/benchmarks", "List what was measured", JobList, query=LimitQuery)
        yield _get("/admin/jobs", "List all long work", JobList, query=JobsQuery)
        yield _post("/admin/jobs", "Start a job of any kind", Job, body=StartBody, status=202)
        for at in ("/admin/downloads/{id}", "/admin/jobs/{id}"):
            yield _get(at, "Show it", Job)
            for action, summary in ACTIONS.items():
                yield _post(f"{at}/{action}", summary, Job)

    def _start(self, path: str, summary: str, kind: str) -> Operation:
        try:
            body = self._kernel.jobs.kind(kind).spec
        except NotFoundError:
            summary, body = f"{summary} (no active plugin can)", None
        return _post(path, summary, Job, body=body, status=202)


def _on_settings(path: str) -> Iterable[Operation]:
    yield _get(path, "Show the settings of a model, and who has set each", ModelSettingsView)
    yield Operation(
        method="PATCH",
        path=path,
        summary="Change settings of a model; null takes one back",
        body=dict[str, Any],
        result=ModelSettingsView,
    )
    yield Operation(
        method="DELETE",
        path=path,
        summary="Take back what was set for a model",
        result=ModelSettingsView,
    )


def _on_the_daemon() -> Iterable[Operation]:
    yield _get("/admin/status", "The daemon at a glance", Status)
    yield Operation(
        method="GET",
        path="/admin/events",
        summary="Tell what happens, as it happens",
        query=EventsQuery,
        streams=True,
        event=EventFrame,
    )
    yield _post("/admin/route", "Say where a request would go, and why", Route, body=RouteQuery)
    yield _get("/admin/decisions", "Show where the last requests went, and why", DecisionList)
    yield _get("/admin/config", "Show the config in force", ConfigView)
    yield Operation(
        method="PATCH",
        path="/admin/config",
        summary="Change values until the next start, all or none",
        body=Values,
        result=ConfigView,
    )
    yield _post("/admin/config/reload", "Read the config file again", ConfigView)
    yield _get("/admin/plugins", "List the plugins", PluginList)
    yield _get("/admin/plugins/{name}", "Show a plugin, and its last calls", PluginDetail)
    yield _post(
        "/admin/plugins/rescan", "Use what was installed since, without what is gone", PluginList
    )
    yield _post("/admin/plugins/{name}/reload", "Import a plugin anew, and use that", PluginStatus)
    yield _post("/admin/plugins/{name}/enable", "Use a plugin", PluginStatus)
    yield _post(
        "/admin/plugins/{name}/disable", "Stop using a plugin until the next start", PluginStatus
    )
    yield _get("/admin/logs", "The end of the log", LogLines, query=LogsQuery)


def _get(path: str, summary: str, result: Any, query: type[Any] | None = None) -> Operation:
    return Operation(method="GET", path=path, summary=summary, result=result, query=query)


def _post(path: str, summary: str, result: Any, body: Any = None, status: int = 200) -> Operation:
    return Operation(
        method="POST", path=path, summary=summary, body=body, result=result, status=status
    )
