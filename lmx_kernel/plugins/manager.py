"""Calls plugins one by one, so that a broken one is a status instead of a crash."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any

import structlog

from lmx_kernel.config import Settings
from lmx_kernel.errors import LmxError, UnauthorizedError
from lmx_kernel.events import Observer
from lmx_kernel.interfaces import (
    AnswerHook,
    ApiSurface,
    Backend,
    Finding,
    HttpRequest,
    JobKind,
    Kernel,
    ModelSource,
    Monitor,
    PluginState,
    Router,
    SettingsSection,
)
from lmx_kernel.plugins.loading import LoadedPlugins
from lmx_kernel.types import GenerationRequest, ModelCard

if TYPE_CHECKING:
    from cyclopts import App


FINDINGS_TIMEOUT_S = 30.0  # they may start a child process
log = structlog.get_logger(__name__)


class RequiredPluginError(Exception):
    """A plugin that the config requires is not active.

    :param reasons: why not, by plugin.
    """

    def __init__(self, reasons: Mapping[str, str]) -> None:
        told = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
        super().__init__(f"required plugins are not active: {told}")


class RequiredPluginLateError(RequiredPluginError):
    """A plugin that the config requires did not answer in time, and may at the next start."""


class Plugins(LoadedPlugins):
    """The loaded plugins, with a typed method for each hook. Every list is in the order of plugin
    names.
    """

    def check_required(self) -> None:
        """Check that the plugins that the config requires are active.

        :raises RequiredPluginError: some are not; RequiredPluginLateError if these are just slow.
        """
        missing = {
            name: (status.reason or status.state.value) if status else "not installed"
            for name in self._settings.required
            if not (status := self._statuses.get(name)) or status.state is not PluginState.ACTIVE
        }
        if missing:
            late = all(reason.startswith(TimeoutError.__name__) for reason in missing.values())
            raise (RequiredPluginLateError if late else RequiredPluginError)(missing)

    # --- the hooks ---

    def settings_sections(self) -> list[SettingsSection]:
        """Sections of the config file."""
        return self._named_objects("lmx_settings")

    def backends(self, settings: Settings) -> list[Backend]:
        """Backends."""
        return self._named_objects("lmx_backends", settings=settings)

    def model_sources(self, settings: Settings) -> list[ModelSource]:
        """Sources of models."""
        return self._named_objects("lmx_model_sources", settings=settings)

    def routers(self, settings: Settings) -> list[Router]:
        """Routers."""
        return self._named_objects("lmx_routers", settings=settings)

    def monitors(self, settings: Settings) -> list[Monitor]:
        """Monitors."""
        return self._named_objects("lmx_monitors", settings=settings)

    def job_kinds(self, kernel: Kernel) -> list[JobKind]:
        """Kinds of jobs."""
        return self._named_objects("lmx_job_kinds", kernel=kernel)

    def api_surfaces(self, kernel: Kernel) -> list[ApiSurface]:
        """API surfaces."""
        return self._named_objects("lmx_api_surfaces", kernel=kernel)

    def lifespans(self, kernel: Kernel) -> list[AbstractAsyncContextManager[None]]:
        """Contexts to keep open while the daemon serves; each is returned once only."""
        return [value for _, value in self._call_new("lmx_lifespan", kernel=kernel)]

    def findings(self, settings: Settings, models: Sequence[ModelCard]) -> list[Finding]:
        """Results of plugins' checks of the machine and its models."""
        arguments: dict[str, Any] = {"settings": settings, "models": models}
        found = self._call("lmx_findings", list, FINDINGS_TIMEOUT_S, **arguments)
        return [finding for _, findings in found for finding in findings]

    def commands(self) -> list[App]:
        """Commands for the command line."""
        return [app for _, apps in self._call("lmx_commands", consume=list) for app in apps]

    def observers(self) -> list[tuple[str, Observer]]:
        """Observers of events: the plugin's name, and the function to call."""
        return self._callers("lmx_event", "event")

    def transforms(self) -> list[tuple[str, Callable[[GenerationRequest], object]]]:
        """What may change or refuse requests: the plugin's name, and the function to call."""
        return self._callers("lmx_transform", "request")

    def answer_hooks(self) -> list[tuple[str, AnswerHook]]:
        """What may observe answers: the plugin's name, and the function to call."""
        return self._callers("lmx_observe", "request", "model", "answer_id")

    def authorize(self, request: HttpRequest) -> LmxError | None:
        """Return why a request is refused, or None. Fails closed: if an authoriser raises, or is
        installed but could not be loaded, every request is refused.
        """
        if self._absent_authorisers:
            return UnauthorizedError("the server cannot check keys at the moment")
        try:
            refusals = (call(request) for _, call in self._callers("lmx_authorize", "request"))
            return next((refusal for refusal in refusals if refusal is not None), None)
        # Plugins may fail in any way, and then the request must be refused.
        except (Exception, SystemExit):
            log.exception("authorizer_failed")
            return UnauthorizedError("the server cannot check keys at the moment")


def commands_of(modules: Iterable[Any]) -> list[App]:
    """Return the commands of modules that are no plugins: the kernel's own."""
    return [app for module in modules for app in module.lmx_commands()]
