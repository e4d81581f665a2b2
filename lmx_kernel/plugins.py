"""Finding, loading and asking plugins: one by one, so that a broken one is a status, not a crash.

This is the only module that touches pluggy's plugin manager in the kernel process.
"""

from __future__ import annotations

import importlib
import inspect
import queue
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from enum import StrEnum
from importlib.metadata import EntryPoint, distributions, entry_points
from typing import TYPE_CHECKING, Any, cast

import pluggy
import structlog
from attrs import define, evolve, field, frozen, validators
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from lmx_kernel.errors import LmxError, UnauthorizedError
from lmx_kernel.events import KernelEvent
from lmx_kernel.hookspecs import GROUP, PROJECT, KernelSpecs
from lmx_kernel.interfaces import (
    ApiSurface,
    Backend,
    Finding,
    HttpRequest,
    JobKind,
    ModelSource,
    Monitor,
    Router,
    SettingsSection,
)

if TYPE_CHECKING:
    from cyclopts import App

    from lmx_kernel.config import Settings
    from lmx_kernel.kernel import Kernel

KERNEL = "lmx-kernel"  # the distribution; its extra `all` names those of LMX's own plugins
FINDINGS_TIMEOUT_S = 30.0  # they may start a child to look closer
Observer = Callable[[KernelEvent], None]
log = structlog.get_logger(__name__)


@frozen(kw_only=True)
class PluginSettings:
    """Section ``[plugins]``.

    :ivar discover: look for installed plugins at all.
    :ivar disabled: names of plugins that are not even imported.
    :ivar required: names of plugins without which the daemon must not start.
    :ivar modules: further plugin modules to load by import path, such as one under development.
    :ivar timeout_s: a plugin whose import or registration takes longer than this is disabled.
    """

    discover: bool = True
    disabled: tuple[str, ...] = ()
    required: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    timeout_s: float = field(default=2.0, validator=validators.gt(0))


class PluginState(StrEnum):
    """What became of a plugin."""

    ACTIVE = "active"
    DISABLED = "disabled"
    FAILED = "failed"


@frozen(kw_only=True)
class PluginStatus:
    """A plugin, and why it is not active if it is not."""

    name: str
    distribution: str
    version: str
    state: PluginState
    reason: str = ""
    hooks: tuple[str, ...] = ()


@define
class _Found:
    """A plugin that may be loaded."""

    status: PluginStatus
    load: Callable[[], object]


class RequiredPluginError(Exception):
    """A plugin that the config requires is not active."""


class Plugins:
    """The loaded plugins, as typed questions. Every list is in the order of plugin names.

    :param safe_mode: load only LMX's own plugins, and those that the config requires.
    """

    def __init__(self, settings: PluginSettings, *, safe_mode: bool = False) -> None:
        self._settings = settings
        self._manager = pluggy.PluginManager(PROJECT)
        self._manager.add_hookspecs(KernelSpecs)
        self._statuses: dict[str, PluginStatus] = {}
        found = _discover(settings)
        self._load(_without_third_parties(found, settings) if safe_mode else found)

    @property
    def statuses(self) -> list[PluginStatus]:
        """Every plugin that was found, by name."""
        return [self._statuses[name] for name in sorted(self._statuses)]

    def check_required(self) -> None:
        """Make sure that what the config requires is there.

        :raises RequiredPluginError: with the reasons.
        """
        missing = [
            f"{name}: {status.reason or status.state}" if status else f"{name}: not installed"
            for name in self._settings.required
            if not (status := self._statuses.get(name)) or status.state is not PluginState.ACTIVE
        ]
        if missing:
            raise RequiredPluginError("required plugins are not active: " + "; ".join(missing))

    # --- the hooks ---

    def settings_sections(self) -> list[SettingsSection]:
        """Sections of the config file."""
        return self._named("lmx_settings")

    def backends(self, settings: Settings) -> list[Backend]:
        """Backends."""
        return self._named("lmx_backends", settings=settings)

    def model_sources(self, settings: Settings) -> list[ModelSource]:
        """Places of models."""
        return self._named("lmx_model_sources", settings=settings)

    def routers(self, settings: Settings) -> list[Router]:
        """Routers."""
        return self._named("lmx_routers", settings=settings)

    def monitors(self, settings: Settings) -> list[Monitor]:
        """Monitors."""
        return self._named("lmx_monitors", settings=settings)

    def job_kinds(self, kernel: Kernel) -> list[JobKind]:
        """Kinds of long work."""
        return self._named("lmx_job_kinds", kernel=kernel)

    def api_surfaces(self, kernel: Kernel) -> list[ApiSurface]:
        """HTTP dialects."""
        return self._named("lmx_api_surfaces", kernel=kernel)

    def lifespans(self, kernel: Kernel) -> list[AbstractAsyncContextManager[None]]:
        """Contexts to hold open while the daemon serves."""
        return [value for _, value in self._ask("lmx_lifespan", kernel=kernel)]

    def findings(self, settings: Settings) -> list[Finding]:
        """What plugins found out about the machine."""
        found = self._ask("lmx_findings", list, FINDINGS_TIMEOUT_S, settings=settings)
        return [finding for _, findings in found for finding in findings]

    def commands(self) -> list[App]:
        """Commands for the command line."""
        return [app for _, apps in self._ask("lmx_commands", consume=list) for app in apps]

    def observers(self) -> list[tuple[str, Observer]]:
        """Who wants to be told of events: the plugin's name, and what to call."""
        impls = self._manager.hook.lmx_event.get_hookimpls()
        return [(impl.plugin_name, cast("Observer", impl.function)) for impl in impls]

    def authorize(self, request: HttpRequest) -> LmxError | None:
        """Return why a request is refused, or None. A door that is broken stays shut."""
        try:
            refusal: LmxError | None = self._manager.hook.lmx_authorize(request=request)
        # Whatever a plugin does wrong here, the answer must be no.
        except (Exception, SystemExit):
            log.exception("authorizer_failed")
            return UnauthorizedError("the server cannot check keys at the moment")
        return refusal

    # --- inside ---

    def _load(self, found: Iterable[_Found]) -> None:
        wanted = []
        for plugin in found:
            self._statuses[plugin.status.name] = plugin.status
            if plugin.status.state is PluginState.ACTIVE:
                wanted.append(plugin)
        outcomes = _run_bounded(
            {plugin.status.name: plugin.load for plugin in wanted}, self._settings.timeout_s
        )
        for plugin in wanted:
            outcome = outcomes[plugin.status.name]
            self._register(plugin.status.name, outcome)

    def _register(self, name: str, outcome: object) -> None:
        try:
            if isinstance(outcome, BaseException):
                raise outcome
            self._manager.register(outcome, name=name)
            self._manager.check_pending()
            hooks = self._hooks_of(name)
        # A plugin may fail in any way, including sys.exit() at import.
        except (Exception, SystemExit) as error:  # noqa: BLE001
            self._fail(name, error)
        else:
            self._statuses[name] = evolve(self._statuses[name], hooks=hooks)

    def _hooks_of(self, name: str) -> tuple[str, ...]:
        callers = self._manager.get_hookcallers(self._manager.get_plugin(name)) or []
        for caller in callers:
            for impl in caller.get_hookimpls():
                if impl.plugin_name == name and inspect.iscoroutinefunction(impl.function):
                    raise TypeError(f"{caller.name} is a coroutine function; hooks are plain")
        return tuple(sorted(caller.name for caller in callers))

    def _fail(self, name: str, error: BaseException) -> None:
        reason = f"{type(error).__name__}: {error}".strip(": ")
        self._statuses[name] = evolve(self._statuses[name], state=PluginState.FAILED, reason=reason)
        if self._manager.has_plugin(name):
            self._manager.unregister(name=name)
        log.error("plugin_failed", plugin=name, reason=reason, exc_info=error)

    def _ask(
        self,
        hook: str,
        consume: Callable[[Any], Any] = lambda value: value,
        timeout_s: float | None = None,
        **arguments: Any,
    ) -> list[tuple[str, Any]]:
        """Call one hook of every plugin; a plugin that fails is disabled, the others are heard."""
        timeout_s = timeout_s or self._settings.timeout_s
        calls = {
            impl.plugin_name: _bind(impl, arguments, consume)
            for impl in getattr(self._manager.hook, hook).get_hookimpls()
        }
        answers = []
        for name, outcome in sorted(_run_bounded(calls, timeout_s).items()):
            if isinstance(outcome, BaseException):
                self._fail(name, outcome)
            elif outcome is not None:
                answers.append((name, outcome))
        return answers

    def _named(self, hook: str, **arguments: Any) -> list[Any]:
        """Ask for things with names, which must be unique."""
        owners: dict[str, str] = {}
        kept = []
        for plugin, things in self._ask(hook, consume=_by_name, **arguments):
            clashes = {name: owners[name] for name in things if name in owners}
            if clashes:
                self._fail(plugin, ValueError(self._clash_text(plugin, clashes)))
                continue
            owners |= dict.fromkeys(things, plugin)
            kept += things.values()
        return kept

    def _clash_text(self, plugin: str, clashes: dict[str, str]) -> str:
        def origin(name: str) -> str:
            status = self._statuses[name]
            return f"{status.distribution} {status.version}"

        name, other = next(iter(clashes.items()))
        return f"{name} is offered by both {origin(other)} and {origin(plugin)}; disable one"


def _by_name(things: Iterable[Any]) -> dict[str, Any]:
    return {thing.name: thing for thing in things}


def _bind(
    impl: pluggy.HookImpl, arguments: dict[str, object], consume: Callable[[Any], Any]
) -> Callable[[], object]:
    chosen = {name: arguments[name] for name in impl.argnames}

    def call() -> object:
        value = impl.function(**chosen)
        return None if value is None else consume(value)

    return call


def _discover(settings: PluginSettings) -> list[_Found]:
    entries: dict[str, list[EntryPoint]] = {}
    for entry in entry_points(group=GROUP) if settings.discover else ():
        entries.setdefault(entry.name, []).append(entry)
    found = [_from_entries(name, entries[name], settings) for name in sorted(entries)]
    return found + [_from_module(path) for path in settings.modules]


def _from_entries(name: str, entries: Sequence[EntryPoint], settings: PluginSettings) -> _Found:
    entry = entries[0]
    state, reason = PluginState.ACTIVE, ""
    if name in settings.disabled:
        state, reason = PluginState.DISABLED, "disabled by the config"
    elif len(entries) > 1:
        names = " and ".join(sorted(_origin(entry) for entry in entries))
        state, reason = PluginState.FAILED, f"both {names} are called {name}; uninstall one"
    status = PluginStatus(
        name=name,
        distribution=entry.dist.name if entry.dist else "unknown",
        version=entry.dist.version if entry.dist else "unknown",
        state=state,
        reason=reason,
    )
    return _Found(status, entry.load)


def _origin(entry: EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else "unknown"


def _from_module(path: str) -> _Found:
    status = PluginStatus(name=path, distribution=path, version="module", state=PluginState.ACTIVE)
    return _Found(status, lambda: importlib.import_module(path))


def _without_third_parties(found: Iterable[_Found], settings: PluginSettings) -> list[_Found]:
    kept = _bundled()
    reason = "safe mode: it may be why the daemon kept dying"

    def hold_back(plugin: _Found) -> _Found:
        status = plugin.status
        is_kept = canonicalize_name(status.distribution) in kept or status.name in settings.required
        if is_kept or status.state is not PluginState.ACTIVE:
            return plugin
        return evolve(plugin, status=evolve(status, state=PluginState.DISABLED, reason=reason))

    return [hold_back(plugin) for plugin in found]


def _bundled() -> set[str]:
    """Return the distributions whose plugins are LMX's own: all that it names in an extra."""
    # Metadata of a build that was left in the working folder may hide that of the installation.
    texts = [text for one in distributions(name=KERNEL) for text in one.requires or ()]
    asked = map(Requirement, texts)
    wanted = (one for one in asked if not one.marker or one.marker.evaluate({"extra": "all"}))
    return {KERNEL, *(canonicalize_name(one.name) for one in wanted)}


def _run_bounded(calls: dict[str, Callable[[], object]], timeout_s: float) -> dict[str, object]:
    """Run plugin code, each call in a thread of its own.

    Returns for each name the value, or the exception; a TimeoutError when nothing at all finished
    for ``timeout_s``: what still runs then is hanging, and is left behind.
    """
    outcomes: queue.SimpleQueue[tuple[str, object]] = queue.SimpleQueue()

    def run(name: str, call: Callable[[], object]) -> None:
        try:
            outcomes.put((name, call()))
        # A plugin may fail in any way, including sys.exit(); the caller gets to see it.
        except (Exception, SystemExit) as error:  # noqa: BLE001
            outcomes.put((name, error))

    for name, call in calls.items():
        threading.Thread(target=run, args=(name, call), daemon=True).start()
    done: dict[str, object] = {}
    while len(done) < len(calls):
        try:
            name, outcome = outcomes.get(timeout=timeout_s)
        except queue.Empty:
            hung = TimeoutError(f"no answer within {timeout_s:g} seconds")
            return {name: done.get(name, hung) for name in calls}
        done[name] = outcome
    return done
