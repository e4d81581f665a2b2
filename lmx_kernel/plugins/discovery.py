"""Finding plugins: what is installed, and which of it may be loaded."""

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
from lmx_kernel.plugins.entry_points import entry_points

KERNEL = "lmx-kernel"  # the distribution; its extra `all` names those of LMX's own plugins


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
    timeout_s: float = field(default=10.0, validator=validators.gt(0))


@define
class Found:
    """A plugin that was found; it may be loaded where its state is active."""

    status: PluginStatus
    load: Callable[[], object]


def look_again() -> None:
    """Let this process see packages that were installed since it started, editable ones too."""
    for folder in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        site.addsitedir(folder)
    importlib.invalidate_caches()


def discover(settings: PluginSettings) -> list[Found]:
    """Return the plugins that are installed or named by the config, by name."""
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
    status = PluginStatus(
        name=name,
        distribution=entry.dist.name if entry.dist else "unknown",
        version=entry.dist.version if entry.dist else "unknown",
        state=state,
        reason=reason,
    )
    return Found(status, entry.load)


def _origin(entry: EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else "unknown"


def _from_module(path: str) -> Found:
    status = PluginStatus(name=path, distribution=path, version="module", state=PluginState.ACTIVE)
    return Found(status, lambda: importlib.import_module(path))


def without_third_parties(found: Iterable[Found], settings: PluginSettings) -> list[Found]:
    """Return ``found`` with all that is neither LMX's own nor required disabled."""
    kept = _bundled()
    reason = "safe mode: it may be why the daemon kept dying"

    def hold_back(plugin: Found) -> Found:
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
