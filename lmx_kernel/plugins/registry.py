"""The plugins that were found: which are loaded, which are not and why."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, cast

import pluggy
import structlog
from attrs import evolve

from lmx_kernel.errors import NotFoundError
from lmx_kernel.hookspecs import PROJECT, KernelSpecs
from lmx_kernel.interfaces import PluginState, PluginStatus
from lmx_kernel.plugins.authorisers import AbsentAuthorisers
from lmx_kernel.plugins.calls import Calls, described
from lmx_kernel.plugins.closing import Closing
from lmx_kernel.plugins.contexts import Contexts
from lmx_kernel.plugins.discovery import Found
from lmx_kernel.plugins.fresh_import import drop_modules
from lmx_kernel.plugins.settings import PluginSettings
from lmx_kernel.plugins.timeouts import Caller

log = structlog.get_logger(__name__)


class MissingPluginError(Exception):
    """A plugin cannot do without another one, which is not active."""

    def __init__(self, needed: str) -> None:
        super().__init__(f"it needs the plugin {needed}, which is not active")


class Registry:
    """Loads, registers and unregisters plugins, one by one.

    :ivar hooks: pluggy's plugin manager, with the plugins that are in use.
    :ivar results: what hooks returned: by hook, by plugin, by name.
    :ivar waiting: plugins whose change on disk cannot be taken up, and why not.
    :ivar revision: counts the plugins that were taken out.
    :ivar contexts: what hooks get beside their own arguments.
    :ivar closing: the plugins that were taken out and still have to give back what they hold.
    """

    def __init__(self, settings: PluginSettings, calls: Calls, caller: Caller) -> None:
        self.hooks = pluggy.PluginManager(PROJECT)
        self.hooks.add_hookspecs(KernelSpecs)
        self.results: dict[str, dict[str, dict[str, Any]]] = {}
        self.waiting: dict[str, str] = {}
        self.absent_authorisers = AbsentAuthorisers()
        self.revision = 0
        self.contexts = Contexts()
        self.closing = Closing()
        self._needs: dict[str, tuple[str, ...]] = {}
        self._settings = settings
        self._calls = calls
        self._caller = caller
        self._found: dict[str, Found] = {}
        self._statuses: dict[str, PluginStatus] = {}

    def __contains__(self, name: object) -> bool:
        return name in self._statuses

    @property
    def names(self) -> list[str]:
        """Every plugin that was found, by name."""
        return sorted(self._statuses)

    @property
    def hurried(self) -> set[str]:
        """The plugins that nobody waits for at the start: third parties that are not required."""
        return {
            name
            for name, found in self._found.items()
            if not found.is_own and name not in self._settings.required
        }

    def found(self, name: str) -> Found:
        """Return a plugin as it was found when it was loaded."""
        return self._found[name]

    def base_status(self, name: str) -> PluginStatus:
        """Return whether a plugin is active, disabled or failed.

        :raises NotFoundError: it was never found.
        """
        try:
            return self._statuses[name]
        except KeyError:
            raise NotFoundError(f"no plugin is called {name[:64]}") from None

    def status(self, name: str) -> PluginStatus:
        """Return the state of a plugin as users see it, with what its calls took."""
        status = self.base_status(name)
        status = evolve(
            status, times=self._calls.times(name), last_error=self._calls.last_error(name)
        )
        if status.state is not PluginState.ACTIVE:
            return status
        installed = self._found[name].installed
        if installed is not None and installed.has_changed:
            why = self.waiting.get(name, "`lmx plugin rescan` takes that up")
            now = installed.version_now()
            change = f"{now} is installed" if now else "it was uninstalled"
            reason = f"{change}, {status.version} runs: {why}"
            outdated = PluginState.OUTDATED
            return evolve(status, state=outdated, reason=reason, installed_version=now)
        if trouble := self._calls.trouble(name):
            state, reason = trouble
            return evolve(status, state=state, reason=reason)
        return status

    def load(self, found: Iterable[Found], *, fresh: bool = False) -> list[str]:
        """Load plugins, all at the same time.

        :param fresh: import their modules anew.
        :returns: those that are active now.
        """
        wanted = []
        for plugin in found:
            name = plugin.status.name
            self._found[name], self._statuses[name] = plugin, plugin.status
            self._calls.forget(name)
            self.waiting.pop(name, None)
            self.absent_authorisers.found(name, plugin.module)
            if plugin.status.state is PluginState.ACTIVE:
                wanted.append(plugin)
            elif plugin.status.state is PluginState.FAILED:
                self.absent_authorisers.lost(name)
        if fresh:
            for plugin in wanted:
                drop_modules(plugin.module, plugin.package)
        calls = {plugin.status.name: partial(self._load_one, plugin) for plugin in wanted}
        outcomes = self._caller.call_all(calls, self.hurried)
        for name, outcome in outcomes.items():
            self._register(name, outcome)
        self._check_needs()
        return [name for name in outcomes if self._statuses[name].state is PluginState.ACTIVE]

    def fail(self, name: str, error: BaseException) -> None:
        """Take a plugin out that cannot be used."""
        reason = described(error)
        self._statuses[name] = evolve(self._statuses[name], state=PluginState.FAILED, reason=reason)
        self.unregister(name)
        self.absent_authorisers.lost(name)
        trace = None if isinstance(error, TimeoutError) else error
        log.error("plugin_failed", plugin=name, reason=reason, exc_info=trace)
        self._fail_dependents(name)

    def disable(self, name: str, reason: str) -> None:
        """Take a plugin out because somebody wants it."""
        status = evolve(self._statuses[name], state=PluginState.DISABLED, reason=reason)
        self._statuses[name] = status
        self.unregister(name)

    def remove(self, name: str) -> None:
        """Forget a plugin that is not installed any more."""
        self.unregister(name)
        self.absent_authorisers.found(name, self._found[name].module)
        del self._found[name], self._statuses[name]
        self._fail_dependents(name)

    def unregister(self, name: str) -> None:
        """Call no hook of a plugin any more, and forget what it returned."""
        for impl in self.hooks.hook.lmx_close.get_hookimpls():
            if impl.plugin_name == name:
                self.closing.add(name, self.contexts.bind(impl))
        if self.hooks.has_plugin(name):
            self.hooks.unregister(name=name)
        self.contexts.forget(name)
        self._needs.pop(name, None)
        for results in self.results.values():
            results.pop(name, None)
        self._calls.forget(name)
        self.waiting.pop(name, None)
        self.revision += 1

    def dependents(self, name: str) -> list[str]:
        """Return the plugins that cannot do without another one."""
        return sorted(plugin for plugin, needed in self._needs.items() if name in needed)

    def loser(self, first: str, second: str) -> str:
        """Return which of two plugins gives way where both cannot be used; see
        :attr:`Found.rank`.
        """
        return max(first, second, key=lambda name: self._found[name].rank)

    def _check_needs(self) -> None:
        """Ask plugins that are new for those that they need, and take out all that lack one."""
        calls = {
            impl.plugin_name: partial(_names, self.contexts.bind(impl))
            for impl in self.hooks.hook.lmx_requires.get_hookimpls()
            if impl.plugin_name not in self._needs
        }
        for name, outcome in self._caller.call_all(calls, self.hurried).items():
            if isinstance(outcome, BaseException):
                self.fail(name, outcome)
            else:
                self._needs[name] = tuple(map(self._called, cast("tuple[str, ...]", outcome)))
        for name in {needed for names in self._needs.values() for needed in names}:
            status = self._statuses.get(name)
            if status is None or status.state is not PluginState.ACTIVE:
                self._fail_dependents(name)

    def _called(self, needed: str) -> str:
        """Return the name of a plugin that another one needs: of one that is loaded by way of
        ``plugins.modules``, that is the path of its module.
        """
        if needed in self._statuses:
            return needed
        same = (name for name, found in self._found.items() if found.entry == needed)
        return next(same, needed)

    def _fail_dependents(self, name: str) -> None:
        for dependent in self.dependents(name):
            self.fail(dependent, MissingPluginError(name))

    def _load_one(self, plugin: Found) -> object:
        with self._calls.watch(plugin.status.name, "import"):
            return plugin.load()

    def _register(self, name: str, outcome: object) -> None:
        try:
            if isinstance(outcome, BaseException):
                raise outcome
            self.hooks.register(outcome, name=name)
            self.hooks.check_pending()
            hooks = _hooks_of(self.hooks, name)
        # Plugins may fail in any way, including sys.exit() at import.
        except (Exception, SystemExit) as error:  # noqa: BLE001
            self.fail(name, error)
        else:
            self._statuses[name] = evolve(self._statuses[name], hooks=hooks)


def _names(call: Callable[[], Iterable[str]]) -> tuple[str, ...]:
    return tuple(call())


def _hooks_of(manager: pluggy.PluginManager, name: str) -> tuple[str, ...]:
    callers = manager.get_hookcallers(manager.get_plugin(name)) or []
    for caller in callers:
        for impl in caller.get_hookimpls():
            if impl.plugin_name == name and inspect.iscoroutinefunction(impl.function):
                raise TypeError(f"{caller.name} is a coroutine function; hooks are plain")
    return tuple(sorted(caller.name for caller in callers))
