"""Loads plugins one by one, so that a broken one is a status instead of a crash.

This is the only module that touches pluggy's plugin manager in the kernel process.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable
from operator import itemgetter
from typing import Any

import pluggy
import structlog
from attrs import evolve

from lmx_kernel.errors import ConflictError, NotFoundError
from lmx_kernel.hookspecs import PROJECT, KernelSpecs
from lmx_kernel.interfaces import PluginState, PluginStatus
from lmx_kernel.plugins.authorisers import AbsentAuthorisers
from lmx_kernel.plugins.closing import Closing
from lmx_kernel.plugins.contexts import Contexts
from lmx_kernel.plugins.discovery import (
    Found,
    PluginSettings,
    discover,
    refresh_import_paths,
    without_third_parties,
)
from lmx_kernel.plugins.timeouts import call_all

PERMANENT = frozenset({"lmx_authorize", "lmx_lifespan"})
log = structlog.get_logger(__name__)


class RequirementError(Exception):
    """A plugin cannot do without another one, which is not active."""

    def __init__(self, needed: str) -> None:
        super().__init__(f"it needs the plugin {needed}, which is not active")


class LoadedPlugins:
    """The loaded plugins. Each hook of each plugin is called once; a later call of a method calls
    the hook of new plugins only.

    :param safe_mode: load only LMX's own plugins, and those that the config requires.
    """

    def __init__(self, settings: PluginSettings, *, safe_mode: bool = False) -> None:
        self._settings = settings
        self._manager = pluggy.PluginManager(PROJECT)
        self._manager.add_hookspecs(KernelSpecs)
        self._statuses: dict[str, PluginStatus] = {}
        self._results: dict[str, dict[str, dict[str, Any]]] = {}  # by hook, by plugin, by name
        self._absent_authorisers = AbsentAuthorisers()
        self.contexts = Contexts()
        self._closing = Closing()
        found = discover(settings)
        self._load(without_third_parties(found, settings) if safe_mode else found)
        for plugin in found:  # safe mode disables an authoriser as well
            if plugin.status.state is not self._statuses[plugin.status.name].state:
                self._absent_authorisers.lost(plugin.status.name)

    @property
    def statuses(self) -> list[PluginStatus]:
        """Every plugin that was found, by name."""
        return [self._statuses[name] for name in sorted(self._statuses)]

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
        if dependents := self._dependents(name):
            raise ConflictError(f"{', '.join(dependents)} cannot do without {name}")
        if status.state is PluginState.ACTIVE:
            self._unregister(name)
            self._statuses[name] = evolve(status, state=PluginState.DISABLED, reason=reason)

    def close_unused(self) -> None:
        """Let plugins that were removed give back what they hold. Slow: call it in a thread."""
        self._closing.run(self._settings.timeout_s)

    def close(self) -> None:
        """Remove all plugins, and let them give back what they hold. Slow: call it in a thread."""
        for name in [name for name, _ in self._callers("lmx_close")]:
            self._unregister(name)
        self.close_unused()

    def owner_of(self, hook: str, name: str) -> str | None:
        """Return the plugin whose ``hook`` returned the object called ``name``."""
        results = self._results.get(hook, {})
        return next((plugin for plugin, objects in results.items() if name in objects), None)

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
        self._check_requirements()
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

    def _check_requirements(self) -> None:
        for name, needed in self._call_new("lmx_requires", consume=dict.fromkeys):
            self._results["lmx_requires"][name] = needed
            for other in needed:
                status = self._statuses.get(other)
                if status is None or status.state is not PluginState.ACTIVE:
                    self._fail(name, RequirementError(other))

    def _dependents(self, name: str) -> list[str]:
        """Return the plugins that require another one."""
        return [n for n, needed in self._results.get("lmx_requires", {}).items() if name in needed]

    def _fail(self, name: str, error: BaseException) -> None:
        reason = f"{type(error).__name__}: {error}".strip(": ")
        self._statuses[name] = evolve(self._statuses[name], state=PluginState.FAILED, reason=reason)
        self._unregister(name)
        self._absent_authorisers.lost(name)
        log.error("plugin_failed", plugin=name, reason=reason, exc_info=error)
        for dependent in self._dependents(name):
            self._fail(dependent, RequirementError(name))

    def _callers(self, hook: str, *arguments: str) -> list[tuple[str, Callable[..., Any]]]:
        """Return a function for a hook of each plugin that has it, and the plugin's name."""
        impls = getattr(self._manager.hook, hook).get_hookimpls()
        return sorted(
            ((impl.plugin_name, self.contexts.caller(impl, *arguments)) for impl in impls),
            key=itemgetter(0),
        )

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
            impl.plugin_name: _consumed(self.contexts.bind(impl, **arguments), consume)
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
        for impl in self._manager.hook.lmx_close.get_hookimpls():
            if impl.plugin_name == name:
                self._closing.add(name, self.contexts.bind(impl))
        if self._manager.has_plugin(name):
            self._manager.unregister(name=name)
        for results in self._results.values():
            results.pop(name, None)
        self.contexts.forget(name)


def _hooks_of(manager: pluggy.PluginManager, name: str) -> tuple[str, ...]:
    callers = manager.get_hookcallers(manager.get_plugin(name)) or []
    for caller in callers:
        for impl in caller.get_hookimpls():
            if impl.plugin_name == name and inspect.iscoroutinefunction(impl.function):
                raise TypeError(f"{caller.name} is a coroutine function; hooks are plain")
    return tuple(sorted(caller.name for caller in callers))


def _by_name(objects: Iterable[Any]) -> dict[str, Any]:
    return {value.name: value for value in objects}


def _consumed(call: Callable[[], Any], consume: Callable[[Any], Any]) -> Callable[[], object]:
    def both() -> object:
        value = call()
        return None if value is None else consume(value)

    return both
