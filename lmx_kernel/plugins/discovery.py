"""Finds plugins: which are installed, and which of them may be loaded."""

from __future__ import annotations

import importlib
import site
import sysconfig
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import EntryPoint, distributions

from attrs import define, evolve, field, frozen, validators
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from lmx_kernel.hookspecs import GROUP
from lmx_kernel.interfaces import PluginState, PluginStatus
from lmx_kernel.plugins.entry_points import api_problem, entry_points

KERNEL = "lmx-kernel"  # the distribution; its extra `all` lists LMX's own plugins


@frozen(kw_only=True)
class PluginSettings:
    """Section ``[plugins]``.

    :ivar discover: look for installed plugins at all.
    :ivar disabled: names of plugins that are not even imported.
    :ivar required: names of plugins without which the daemon must not start.
    :ivar modules: further plugin modules to load by import path, such as one under development.
    :ivar timeout_s: a plugin whose import or registration takes longer than this is disabled, and a
        request that one takes longer to check is refused.
    """

    discover: bool = True
    disabled: tuple[str, ...] = ()
    required: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    timeout_s: float = field(default=10.0, validator=validators.gt(0))


@define
class Found:
    """A plugin that was found; it may be loaded if its state is active.

    :ivar module: its import path.
    """

    status: PluginStatus
    module: str
    load: Callable[[], object]


def refresh_import_paths() -> None:
    """Make packages importable that were installed since the start, editable ones too."""
    for folder in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        site.addsitedir(folder)
    importlib.invalidate_caches()


def discover(settings: PluginSettings) -> list[Found]:
    """Return the plugins that are installed or listed in the config, ordered by name."""
    entries: dict[str, list[EntryPoint]] = {}
    for entry in entry_points(GROUP) if settings.discover else ():
        entries.setdefault(entry.name, []).append(entry)
    found = [_from_entries(name, entries[name], settings) for name in sorted(entries)]
    return found + [_from_module(path) for path in settings.modules]


def _from_entries(name: str, entries: Sequence[EntryPoint], settings: PluginSettings) -> Found:
    entry = entries[0]
    state, reason = PluginState.ACTIVE, ""
    if name in settings.disabled:
        state, reason = PluginState.DISABLED, "disabled by the config"
    elif len(entries) > 1:
        names = " and ".join(sorted(_origin(entry) for entry in entries))
        state, reason = PluginState.FAILED, f"both {names} are called {name}; uninstall one"
    elif entry.dist and (problem := api_problem(entry.dist)):
        state, reason = PluginState.FAILED, problem
    status = PluginStatus(
        name=name,
        distribution=entry.dist.name if entry.dist else "unknown",
        version=entry.dist.version if entry.dist else "unknown",
        state=state,
        reason=reason,
    )
    return Found(status, entry.module, entry.load)


def _origin(entry: EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else "unknown"


def _from_module(path: str) -> Found:
    status = PluginStatus(name=path, distribution=path, version="module", state=PluginState.ACTIVE)
    return Found(status, path, lambda: importlib.import_module(path))


def without_third_parties(found: Iterable[Found], settings: PluginSettings) -> list[Found]:
    """Return ``found`` with every plugin disabled that is neither LMX's own nor required."""
    kept = _bundled()
    reason = "safe mode: it may be why the daemon kept dying"

    def disable_if_foreign(plugin: Found) -> Found:
        status = plugin.status
        is_kept = canonicalize_name(status.distribution) in kept or status.name in settings.required
        if is_kept or status.state is not PluginState.ACTIVE:
            return plugin
        return evolve(plugin, status=evolve(status, state=PluginState.DISABLED, reason=reason))

    return [disable_if_foreign(plugin) for plugin in found]


def _bundled() -> set[str]:
    """Return the distributions whose plugins are LMX's own: those in its extra `all`."""
    # All of them: metadata left by a build in the working folder may hide the installed one.
    texts = [text for one in distributions(name=KERNEL) for text in one.requires or ()]
    requirements = map(Requirement, texts)
    bundled = (r for r in requirements if not r.marker or r.marker.evaluate({"extra": "all"}))
    return {KERNEL, *(canonicalize_name(one.name) for one in bundled)}
