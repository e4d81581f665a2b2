"""Plugins that come, change and go while the daemon runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from attrs import evolve

from lmx_kernel.errors import ConflictError, NotFoundError
from lmx_kernel.interfaces import PluginState
from lmx_kernel.plugins.discovery import Found, discover, refresh_import_paths
from lmx_kernel.plugins.registry import Registry
from lmx_kernel.plugins.settings import PluginSettings
from lmx_kernel.plugins.timeouts import Caller

PERMANENT = frozenset({"lmx_authorize"})


class PluginChanges:
    """Loads, reloads and takes out plugins. Its methods are slow: call them in a thread, one at a
    time.
    """

    def __init__(self, settings: PluginSettings, registry: Registry, caller: Caller) -> None:
        self._settings = settings
        self._registry = registry
        self._caller = caller
        self._retried: set[str] = set()

    def be_patient(self) -> None:
        """Give third parties as much time as LMX's own plugins from now on."""
        self._caller.be_patient()

    def call_when_late(self, on_late: Callable[[str], None]) -> None:
        """Call ``on_late``, in any thread, with the name of each plugin that did not answer in
        time and has answered since: :meth:`retry` may use it now.
        """
        self._caller.call_when_late(on_late)

    def rescan(self, busy: Mapping[str, str]) -> list[str]:
        """Load new plugins and new versions of others, retry those that failed, and take those out
        that are gone.

        :param busy: plugins that cannot be taken out now, and why not.
        :returns: the names of the plugins that are active now and were not before, or in another
            version.
        """
        refresh_import_paths()
        registry, hanging = self._registry, self._caller.hanging
        found = {plugin.status.name: plugin for plugin in discover(self._settings)}
        for name in registry.names:
            if name not in found and self._may_take_out(name, busy):
                registry.remove(name)
        new = [plugin for name, plugin in found.items() if name not in registry]
        again = []
        for plugin in (plugin for name, plugin in found.items() if name in registry):
            name = plugin.status.name
            known = registry.found(name)
            has_changed = plugin.installed != known.installed
            state = registry.base_status(name).state
            if state is PluginState.FAILED:
                if has_changed or name not in hanging:
                    again.append(plugin)
            elif state is PluginState.ACTIVE and has_changed and self._may_take_out(name, busy):
                registry.unregister(name)
                again.append(plugin)
        self._retried.difference_update(plugin.status.name for plugin in again)
        return registry.load(new) + registry.load(again, fresh=True)

    def retry(self, name: str) -> list[str]:
        """Load a plugin again that did not answer in time, without a new import.

        :returns: its name if it is active now.
        """
        registry = self._registry
        if name in self._retried or name not in registry:
            return []
        if registry.base_status(name).state is not PluginState.FAILED:
            return []
        self._retried.add(name)  # once: it may be too slow each time
        return registry.load([registry.found(name)])

    def enable(self, name: str) -> None:
        """Load a plugin that is disabled.

        :raises NotFoundError: it is not installed.
        :raises ConflictError: it cannot be loaded, with the reason.
        """
        status = self._registry.base_status(name)
        if status.state is PluginState.ACTIVE:
            return
        self._load_anew(name, evolve(self._settings, disabled=()))
        status = self._registry.base_status(name)
        if status.state is not PluginState.ACTIVE:
            raise ConflictError(f"{name} cannot be enabled: {status.reason}")

    def reload(self, name: str, busy: Mapping[str, str]) -> None:
        """Import a plugin anew and use that, whether or not it has changed.

        :param busy: as for :meth:`rescan`.
        :raises NotFoundError: it is not installed.
        :raises ConflictError: it cannot be taken out now, with the reason.
        """
        self._registry.base_status(name)
        if not self._may_take_out(name, busy):
            status, why = self._registry.status(name), self._registry.waiting[name]
            runs = status.reason or f"{status.version} runs on: {why}"
            raise ConflictError(f"{name} cannot be reloaded now; {runs}")
        self._registry.unregister(name)
        self._load_anew(name, self._settings)

    def disable(
        self, name: str, busy: Mapping[str, str], reason: str = "disabled by an administrator"
    ) -> None:
        """Unregister a plugin; the objects that it returned are not listed any more.

        :param busy: as for :meth:`rescan`.
        :raises NotFoundError: it is not installed.
        :raises ConflictError: the config requires it, or it cannot be taken out now.
        """
        status = self._registry.base_status(name)
        if name in self._settings.required:
            raise ConflictError(f"{name} is required by the config")
        if why := self._why_not(name, busy):
            raise ConflictError(f"{name} {why}")
        if dependents := self._registry.dependents(name):
            raise ConflictError(f"{', '.join(dependents)} cannot do without {name}")
        if status.state is PluginState.ACTIVE:
            self._registry.disable(name, reason)

    def close_unused(self) -> None:
        """Let plugins that were taken out give back what they hold, once nothing uses them."""
        self._registry.closing.run(self._settings.timeout_s)

    def close(self) -> None:
        """Take out the plugins that hold something, and let them give it back."""
        for impl in self._registry.hooks.hook.lmx_close.get_hookimpls():
            self._registry.unregister(impl.plugin_name)
        self.close_unused()

    # --- inside ---

    def _why_not(self, name: str, busy: Mapping[str, str]) -> str:
        """Return why a plugin cannot be taken out while the daemon runs; "" if it can."""
        if not PERMANENT.isdisjoint(self._registry.base_status(name).hooks):
            return "can only be disabled by the config, at a start"
        return busy.get(name, "")

    def _may_take_out(self, name: str, busy: Mapping[str, str]) -> bool:
        why = self._why_not(name, busy)
        if why:
            self._registry.waiting[name] = f"until the restart, since {name} {why}"
        return not why

    def _load_anew(self, name: str, settings: PluginSettings) -> None:
        refresh_import_paths()
        found = [plugin for plugin in discover(settings) if plugin.status.name == name]
        if not found:
            self._registry.remove(name)
            raise NotFoundError(f"{name} is not installed any more")
        self._registry.load(found, fresh=self._needs_import(found[0]))

    def _needs_import(self, found: Found) -> bool:
        """Return whether the modules that are imported may not be those on disk."""
        name = found.status.name
        known = self._registry.found(name)
        is_disabled = self._registry.base_status(name).state is PluginState.DISABLED
        return found.installed != known.installed or not is_disabled
