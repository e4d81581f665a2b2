"""Loads and calls plugins one by one, so that a broken one is a status instead of a crash.

This is the only module that touches pluggy's plugin manager in the kernel process.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, cast

import pluggy
import structlog
from attrs import evolve

from lmx_kernel.config import Settings
from lmx_kernel.errors import ConflictError, LmxError, NotFoundError, UnauthorizedError
from lmx_kernel.events import Observer
from lmx_kernel.hookspecs import PROJECT, KernelSpecs
from lmx_kernel.interfaces import (
    ApiSurface,
    Backend,
    Finding,
    HttpRequest,
    JobKind,
    Kernel,
    ModelSource,
    Monitor,
    PluginState,
    PluginStatus,
    Router,
    SettingsSection,
)
from lmx_kernel.plugins.authorisers import AbsentAuthorisers
from lmx_kernel.plugins.discovery import (
    Found,
    PluginSettings,
    discover,
    refresh_import_paths,
    without_third_parties,
)
from lmx_kernel.plugins.timeouts import call_all
from lmx_kernel.types import ModelCard

if TYPE_CHECKING:
    from cyclopts import App


PERMANENT = frozenset({"lmx_authorize", "lmx_lifespan"})
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


class Plugins:
    """The loaded plugins, with a typed method for each hook. Every list is in the order of plugin
    names. Each hook of each plugin is called once; a later call of a method calls the hook of new
    plugins only.

    :param safe_mode: load only LMX's own plugins, and those that the config requires.
    """

    def __init__(self, settings: PluginSettings, *, safe_mode: bool = False) -> None:
        self._settings = settings
        self._manager = pluggy.PluginManager(PROJECT)
        self._manager.add_hookspecs(KernelSpecs)
        self._statuses: dict[str, PluginStatus] = {}
        self._results: dict[str, dict[str, dict[str, Any]]] = {}  # by hook, by plugin, by name
        self._absent_authorisers = AbsentAuthorisers()
        found = discover(settings)
        self._load(without_third_parties(found, settings) if safe_mode else found)
        for plugin in found:  # safe mode disables an authoriser as well
            if plugin.status.state is not self._statuses[plugin.status.name].state:
                self._absent_authorisers.lost(plugin.status.name)

    @property
    def statuses(self) -> list[PluginStatus]:
        """Every plugin that was found, by name."""
        return [self._statuses[name] for name in sorted(self._statuses)]

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

    # --- while the daemon runs ---

    def rescan(self) -> list[str]:
        """Load new plugins, and retry those that failed. Slow: call it in a thread.

        :returns: the names of the plugins that are active now and were not before.
        """
        refresh_import_paths()
        retried = {n for n, status in self._statuses.items() if status.state is PluginState.FAILED}
        return self._load(
            plugin
            for plugin in discover(self._settings)
            if plugin.status.name in retried or plugin.status.name not in self._statuses
        )

    def enable(self, name: str) -> None:
        """Load a plugin that is disabled. Slow: call it in a thread.

        :raises NotFoundError: it is not installed.
        :raises ConflictError: it cannot be loaded, with the reason.
        """
        self._status(name)
        found = discover(evolve(self._settings, disabled=()))
        if self._statuses[name].state is not PluginState.ACTIVE:
            self._load(plugin for plugin in found if plugin.status.name == name)
        if self._statuses[name].state is not PluginState.ACTIVE:
            raise ConflictError(f"{name} cannot be enabled: {self._statuses[name].reason}")

    def disable(self, name: str, reason: str = "disabled by an administrator") -> None:
        """Unregister a plugin; the objects that it returned are not listed any more.

        :raises NotFoundError: it is not installed.
        :raises ConflictError: the config requires it, or it has a hook in :data:`PERMANENT`.
        """
        status = self._status(name)
        if name in self._settings.required:
            raise ConflictError(f"{name} is required by the config")
        if not PERMANENT.isdisjoint(status.hooks):
            raise ConflictError(f"{name} can only be disabled by the config, at a start")
        if status.state is PluginState.ACTIVE:
            self._unregister(name)
            self._statuses[name] = evolve(status, state=PluginState.DISABLED, reason=reason)

    def owner_of(self, hook: str, name: str) -> str | None:
        """Return the plugin whose ``hook`` returned the object called ``name``."""
        results = self._results.get(hook, {})
        return next((plugin for plugin, objects in results.items() if name in objects), None)

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
        impls = self._manager.hook.lmx_event.get_hookimpls()
        return [(impl.plugin_name, cast("Observer", impl.function)) for impl in impls]

    def authorize(self, request: HttpRequest) -> LmxError | None:
        """Return why a request is refused, or None. Fails closed: if an authoriser raises, or is
        installed but could not be loaded, every request is refused.
        """
        if self._absent_authorisers:
            return UnauthorizedError("the server cannot check keys at the moment")
        try:
            refusal: LmxError | None = self._manager.hook.lmx_authorize(request=request)
        # Plugins may fail in any way, and then the request must be refused.
        except (Exception, SystemExit):
            log.exception("authorizer_failed")
            return UnauthorizedError("the server cannot check keys at the moment")
        return refusal

    # --- inside ---

    def _status(self, name: str) -> PluginStatus:
        try:
            return self._statuses[name]
        except KeyError:
            raise NotFoundError(f"no plugin is called {name[:64]}") from None

    def _load(self, found: Iterable[Found]) -> list[str]:
        wanted = []
        for plugin in found:
            self._statuses[plugin.status.name] = plugin.status
            self._absent_authorisers.found(plugin.status, plugin.module)
            if plugin.status.state is PluginState.ACTIVE:
                wanted.append(plugin)
        calls = {plugin.status.name: plugin.load for plugin in wanted}
        outcomes = call_all(calls, self._settings.timeout_s)
        for name, outcome in outcomes.items():
            self._register(name, outcome)
        return [name for name in outcomes if self._statuses[name].state is PluginState.ACTIVE]

    def _register(self, name: str, outcome: object) -> None:
        try:
            if isinstance(outcome, BaseException):
                raise outcome
            self._manager.register(outcome, name=name)
            self._manager.check_pending()
            hooks = _hooks_of(self._manager, name)
        # Plugins may fail in any way, including sys.exit() at import.
        except (Exception, SystemExit) as error:  # noqa: BLE001
            self._fail(name, error)
        else:
            self._statuses[name] = evolve(self._statuses[name], hooks=hooks)

    def _fail(self, name: str, error: BaseException) -> None:
        reason = f"{type(error).__name__}: {error}".strip(": ")
        self._statuses[name] = evolve(self._statuses[name], state=PluginState.FAILED, reason=reason)
        self._unregister(name)
        self._absent_authorisers.lost(name)
        log.error("plugin_failed", plugin=name, reason=reason, exc_info=error)

    def _call(
        self,
        hook: str,
        consume: Callable[[Any], Any] = lambda value: value,
        timeout_s: float | None = None,
        without: Collection[str] = (),
        **arguments: Any,
    ) -> list[tuple[str, Any]]:
        """Call one hook of every plugin; return results by name, and disable plugins that fail."""
        timeout_s = timeout_s or self._settings.timeout_s
        calls = {
            impl.plugin_name: _bind(impl, arguments, consume)
            for impl in getattr(self._manager.hook, hook).get_hookimpls()
            if impl.plugin_name not in without
        }
        results = []
        for name, outcome in sorted(call_all(calls, timeout_s).items()):
            if isinstance(outcome, BaseException):
                self._fail(name, outcome)
            elif outcome is not None:
                results.append((name, outcome))
        return results

    def _call_new(
        self, hook: str, consume: Callable[[Any], Any] = lambda value: value, **arguments: Any
    ) -> list[tuple[str, Any]]:
        """Call one hook of the plugins for which it was not called before."""
        called = self._results.setdefault(hook, {})
        before = frozenset(called)
        for impl in getattr(self._manager.hook, hook).get_hookimpls():
            called.setdefault(impl.plugin_name, {})
        return self._call(hook, consume, without=before, **arguments)

    def _named_objects(self, hook: str, **arguments: Any) -> list[Any]:
        """Return the objects that a hook returned; their names must be unique."""
        for plugin, objects in self._call_new(hook, consume=_by_name, **arguments):
            owners = {name: other for other, names in self._results[hook].items() for name in names}
            if clashes := owners.keys() & objects.keys():
                name = min(clashes)
                self._fail(plugin, ValueError(self._clash_text(name, owners[name], plugin)))
            else:
                self._results[hook][plugin] = objects
        results = sorted(self._results.get(hook, {}).items())
        return [value for _, objects in results for value in objects.values()]

    def _clash_text(self, name: str, plugin: str, other: str) -> str:
        first, second = self._statuses[plugin], self._statuses[other]
        return (
            f"{name} is offered by both {first.distribution} {first.version} and "
            f"{second.distribution} {second.version}; disable one"
        )

    def _unregister(self, name: str) -> None:
        if self._manager.has_plugin(name):
            self._manager.unregister(name=name)
        for results in self._results.values():
            results.pop(name, None)


def commands_of(modules: Iterable[object]) -> list[App]:
    """Return the commands of modules that are no plugins: the kernel's own."""
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(KernelSpecs)
    for module in modules:
        manager.register(module)
    manager.check_pending()
    return [app for apps in manager.hook.lmx_commands() for app in apps]


def _hooks_of(manager: pluggy.PluginManager, name: str) -> tuple[str, ...]:
    callers = manager.get_hookcallers(manager.get_plugin(name)) or []
    for caller in callers:
        for impl in caller.get_hookimpls():
            if impl.plugin_name == name and inspect.iscoroutinefunction(impl.function):
                raise TypeError(f"{caller.name} is a coroutine function; hooks are plain")
    return tuple(sorted(caller.name for caller in callers))


def _by_name(objects: Iterable[Any]) -> dict[str, Any]:
    return {value.name: value for value in objects}


def _bind(
    impl: pluggy.HookImpl, arguments: dict[str, object], consume: Callable[[Any], Any]
) -> Callable[[], object]:
    chosen = {name: arguments[name] for name in impl.argnames}

    def call() -> object:
        value = impl.function(**chosen)
        return None if value is None else consume(value)

    return call
