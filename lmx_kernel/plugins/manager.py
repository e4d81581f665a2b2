"""Loads and calls plugins one by one, so that a broken one is a status instead of a crash.

This is the only module that calls the hooks in the kernel process.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import pluggy
import structlog

from lmx_kernel.config import Settings
from lmx_kernel.errors import LmxError, UnauthorizedError
from lmx_kernel.events import Observer
from lmx_kernel.interfaces import (
    ApiSurface,
    Backend,
    Finding,
    HttpRequest,
    JobKind,
    Kernel,
    ModelSource,
    Monitor,
    PluginStatus,
    Router,
    SettingsSection,
)
from lmx_kernel.plugins.calls import Calls
from lmx_kernel.plugins.changes import PluginChanges
from lmx_kernel.plugins.checks import SHAPES, named
from lmx_kernel.plugins.discovery import Rank, discover, without_third_parties
from lmx_kernel.plugins.registry import Registry
from lmx_kernel.plugins.settings import (
    PluginSettings,
    RequiredPluginError,
    RequiredPluginLateError,
)
from lmx_kernel.plugins.timeouts import Caller
from lmx_kernel.types import ModelCard

if TYPE_CHECKING:
    from cyclopts import App


FINDINGS_TIMEOUT_S = 30.0  # they may start a child process
BY_NAME = attrgetter("plugin_name")
log = structlog.get_logger(__name__)


class Plugins:
    """The loaded plugins, with a typed method for each hook. Every list is in the order of plugin
    names. Each hook of each plugin is called once; a later call of a method calls the hook of new
    plugins only.

    :param safe_mode: load only LMX's own plugins, and those that the config requires.
    :param patience_s: how long third parties are waited for at the start, when LMX's own plugins
        are done, in all hooks together; None gives them as long as the others.
    :ivar calls: what the calls of plugins took, and how they failed.
    :ivar contexts: what hooks get beside their own arguments, and the metrics of all plugins.
    :ivar changes: loads and takes out plugins while the daemon runs.
    """

    def __init__(
        self,
        settings: PluginSettings,
        *,
        safe_mode: bool = False,
        patience_s: float | None = None,
    ) -> None:
        self.calls = Calls()
        self._settings = settings
        self._caller = Caller(settings.timeout_s, patience_s)
        self._registry = Registry(settings, self.calls, self._caller)
        self.contexts = self._registry.contexts
        self.changes = PluginChanges(settings, self._registry, self._caller)
        found = discover(settings)
        self._registry.load(without_third_parties(found, settings) if safe_mode else found)
        for plugin in found:  # safe mode disables an authoriser as well
            name = plugin.status.name
            if plugin.status.state is not self._registry.base_status(name).state:
                self._registry.absent_authorisers.lost(name)

    @property
    def statuses(self) -> list[PluginStatus]:
        """Every plugin that was found, by name."""
        return [self._registry.status(name) for name in self._registry.names]

    @property
    def revision(self) -> int:
        """Changes whenever a plugin is taken out, also because a hook of it failed."""
        return self._registry.revision

    def check_known(self, name: str) -> None:
        """Check that a plugin was found.

        :raises NotFoundError: it was not.
        """
        self._registry.base_status(name)

    def check_required(self) -> None:
        """Check that the plugins that the config requires are active.

        :raises RequiredPluginError: some are not; RequiredPluginLateError if these are just slow.
        """
        statuses = {status.name: status for status in self.statuses}
        missing = {
            name: (status.reason or status.state.value) if status else "not installed"
            for name in self._settings.required
            if not (status := statuses.get(name)) or not status.is_in_use
        }
        if missing:
            late = all(reason.startswith(TimeoutError.__name__) for reason in missing.values())
            raise (RequiredPluginLateError if late else RequiredPluginError)(missing)

    def fail(self, name: str, error: BaseException) -> None:
        """Take a plugin out that turned out to be of no use."""
        self._registry.fail(name, error)

    def fail_owner(self, hook: str, name: str, error: BaseException) -> None:
        """Take out the plugin whose ``hook`` returned the object called ``name``."""
        if (owner := self.owner_of(hook, name)) is not None:
            self._registry.fail(owner, error)

    def owner_of(self, hook: str, name: str) -> str | None:
        """Return the plugin whose ``hook`` returned the object called ``name``."""
        results = self._registry.results.get(hook, {})
        return next((plugin for plugin, objects in results.items() if name in objects), None)

    def has_section(self, plugin: str) -> bool:
        """Return whether a plugin has a section of the config."""
        return bool(self._registry.results.get("lmx_settings", {}).get(plugin))

    def watch(self, hook: str, name: str, method: str) -> AbstractContextManager[None]:
        """Time and record a call of an object; see :data:`lmx_kernel.plugins.calls.Watch`."""
        owner = self.owner_of(hook, name) or name
        return self.calls.watch(owner, f"{name}.{method}", on_loop=hook == "lmx_routers")

    # --- the hooks ---

    def settings_sections(self, reserved: Collection[str] = ()) -> list[SettingsSection]:
        """Sections of the config file.

        :param reserved: the names of LMX's own.
        """
        return self._named_objects("lmx_settings", reserved=reserved)

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
        """API surfaces, LMX's own and those that were there first before others."""
        surfaces = self._named_objects("lmx_api_surfaces", kernel=kernel)
        return sorted(surfaces, key=self._rank_of_surface)

    def lifespans(self, kernel: Kernel) -> list[tuple[str, AbstractAsyncContextManager[None]]]:
        """Contexts to keep open while the daemon serves, each with its plugin's name; each is
        returned once only.
        """
        return self._call_new("lmx_lifespan", kernel=kernel)

    def findings(self, settings: Settings, models: Sequence[ModelCard]) -> list[Finding]:
        """Results of plugins' checks of the machine and its models."""
        arguments: dict[str, Any] = {"settings": settings, "models": models}
        found = self._call("lmx_findings", list, FINDINGS_TIMEOUT_S, **arguments)
        return [finding for _, findings in found for finding in findings]

    def commands_by_plugin(self) -> list[tuple[str, list[App]]]:
        """Commands for the command line, by plugin."""
        return self._call("lmx_commands", consume=list)

    def observers(self) -> list[tuple[str, Observer]]:
        """Observers of events: the plugin's name, and the function to call."""
        return self.callers("lmx_event", "event")

    def callers(self, hook: str, *arguments: str) -> list[tuple[str, Callable[..., Any]]]:
        """Each plugin that has a hook, and a function of these arguments that calls it."""
        impls = sorted(getattr(self._registry.hooks.hook, hook).get_hookimpls(), key=BY_NAME)
        return [(one.plugin_name, self.contexts.caller(one, *arguments)) for one in impls]

    def authorize(self, request: HttpRequest) -> LmxError | None:
        """Return why a request is refused, or None. Fails closed: if an authoriser raises, or is
        installed but could not be loaded, every request is refused.
        """
        refused = UnauthorizedError("the server cannot check keys at the moment")
        if self._registry.absent_authorisers:
            return refused
        for name, ask in self.callers("lmx_authorize", "request"):
            try:
                with self.calls.watch(name, "lmx_authorize", on_loop=True):
                    refusal = _checked_refusal(ask(request))
            # Plugins may fail in any way, and then the request must be refused.
            except (Exception, SystemExit):
                log.exception("authorizer_failed", plugin=name)
                return refused
            if refusal is not None:
                return refusal
        return None

    # --- inside ---

    def _rank_of_surface(self, surface: ApiSurface) -> tuple[Rank, str]:
        owner = self.owner_of("lmx_api_surfaces", surface.name)
        return self._registry.found(owner or "").rank, surface.name

    def _call(
        self,
        hook: str,
        consume: Callable[[Any], Any] = lambda value: value,
        timeout_s: float | None = None,
        without: Collection[str] = (),
        **arguments: Any,
    ) -> list[tuple[str, Any]]:
        """Call one hook of every plugin; return results by name, and disable plugins that fail."""
        calls = {
            impl.plugin_name: partial(self._watched, hook, impl, arguments, consume)
            for impl in getattr(self._registry.hooks.hook, hook).get_hookimpls()
            if impl.plugin_name not in without
        }
        results = []
        outcomes = self._caller.call_all(calls, self._registry.hurried, timeout_s)
        for name, outcome in sorted(outcomes.items()):
            if isinstance(outcome, BaseException):
                self._registry.fail(name, outcome)
            elif outcome is not None:
                results.append((name, outcome))
        return results

    def _watched(
        self,
        hook: str,
        impl: pluggy.HookImpl,
        arguments: dict[str, object],
        consume: Callable[[Any], Any],
    ) -> object:
        with self.calls.watch(impl.plugin_name, hook):
            result = self._registry.contexts.bind(impl, **arguments)()
            if result is not None:
                return consume(result)
        if hook in SHAPES:
            log.warning("hook_returned_nothing", plugin=impl.plugin_name, hook=hook)
        return None

    def _call_new(
        self, hook: str, consume: Callable[[Any], Any] = lambda value: value, **arguments: Any
    ) -> list[tuple[str, Any]]:
        """Call one hook of the plugins for which it was not called before."""
        called = self._registry.results.setdefault(hook, {})
        before = frozenset(called)
        for impl in getattr(self._registry.hooks.hook, hook).get_hookimpls():
            called.setdefault(impl.plugin_name, {})
        return self._call(hook, consume, without=before, **arguments)

    def _named_objects(
        self, hook: str, *, reserved: Collection[str] = (), **arguments: Any
    ) -> list[Any]:
        """Return the objects that a hook returned; their names must be unique. Where two plugins
        clash, the one of the higher rank is taken out.
        """
        registry = self._registry
        called = registry.results.setdefault(hook, {})
        consume = partial(named, hook, reserved=reserved)
        for plugin, objects in self._call_new(hook, consume=consume, **arguments):
            owners = {name: other for other, names in called.items() for name in names}
            for name in sorted(owners.keys() & objects.keys()):
                loser = registry.loser(plugin, owners[name])
                winner = owners[name] if loser == plugin else plugin
                registry.fail(loser, ValueError(self._clash_text(name, winner, loser)))
                if loser == plugin:
                    break
            else:
                called[plugin] = objects
        results = sorted(called.items())
        return [value for _, objects in results for value in objects.values()]

    def _clash_text(self, name: str, winner: str, loser: str) -> str:
        first, second = map(self._registry.base_status, (winner, loser))
        return (
            f"{name} is offered by both {first.distribution} {first.version} and "
            f"{second.distribution} {second.version}; the first is used"
        )


def _checked_refusal(value: object) -> LmxError | None:
    if value is not None and not isinstance(value, LmxError):
        raise TypeError(f"lmx_authorize returned {value!r}, and not an LmxError")
    return value
