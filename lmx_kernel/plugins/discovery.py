"""Finds plugins: which are installed, and which of them may be loaded."""

from __future__ import annotations

import importlib
import site
import sysconfig
from collections.abc import Callable, Collection, Iterable
from functools import partial
from importlib.metadata import Distribution, EntryPoint, distributions

from attrs import define, evolve
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from lmx_kernel.hookspecs import GROUP
from lmx_kernel.interfaces import PluginState, PluginStatus
from lmx_kernel.plugins.api_version import api_problem
from lmx_kernel.plugins.entry_points import entry_points
from lmx_kernel.plugins.installed import KERNEL, Installed, kernel_problem
from lmx_kernel.plugins.settings import PluginSettings

Rank = tuple[int, float, str]


@define
class Found:
    """A plugin that was found; it may be loaded if its state is active.

    :ivar module: its import path.
    :ivar rank: of two that clash, the one with the lower rank is kept: LMX's own, then the one
        whose package was installed first, then the first by name; those of ``plugins.modules`` are
        the last, in their order there.
    :ivar package: None for one of ``plugins.modules``.
    :ivar is_own: whether it is one of LMX's own plugins, also by way of ``plugins.modules``.
    :ivar entry: the name of the entry point, by which other plugins may require it; "" for one of
        ``plugins.modules`` that no package registers.
    """

    status: PluginStatus
    module: str
    load: Callable[[], object]
    rank: Rank
    is_own: bool
    entry: str
    package: Distribution | None = None
    installed: Installed | None = None


def refresh_import_paths() -> None:
    """Make packages importable that were installed since the start, editable ones too."""
    for folder in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        site.addsitedir(folder)
    importlib.invalidate_caches()


def discover(settings: PluginSettings) -> list[Found]:
    """Return the plugins that are installed or listed in the config, by rank."""
    own = bundled()
    entries = entry_points(GROUP) if settings.discover or settings.modules else ()
    ranked = sorted((_rank(entry, own), entry) for entry in entries if settings.discover)
    first: dict[str, EntryPoint] = {}
    found = []
    for rank, entry in ranked:
        holder = first.setdefault(entry.name, entry)
        found.append(_from_entry(entry, holder, rank, settings))
    entry_of = {entry.module: entry for entry in entries}
    return found + [
        _from_module(path, place, entry_of.get(path), own)
        for place, path in enumerate(settings.modules)
    ]


def _rank(entry: EntryPoint, own: Collection[str]) -> Rank:
    if entry.dist is None:
        return (2, 0.0, entry.name)
    if _is_own(entry, own):
        return (0, 0.0, entry.name)
    return (1, Installed.of(entry.dist).at, entry.name)


def _is_own(entry: EntryPoint, own: Collection[str]) -> bool:
    return entry.dist is not None and canonicalize_name(entry.dist.name) in own


def _from_entry(
    entry: EntryPoint, holder: EntryPoint, rank: Rank, settings: PluginSettings
) -> Found:
    """Return the plugin of an entry point.

    :param holder: the first entry point of that name, which is kept.
    """
    package, name = entry.dist, entry.name
    installed = Installed.of(package) if package else None
    state, reason = PluginState.ACTIVE, ""
    if entry is not holder:
        state, reason = PluginState.FAILED, f"its name is that of {_origin(holder)}; uninstall one"
        name = f"{name} of {installed.name if installed else 'unknown'}"
    elif name in settings.disabled:
        state, reason = PluginState.DISABLED, "disabled by the config"
    elif package and (problem := kernel_problem(package) or api_problem(package)):
        state, reason = PluginState.FAILED, problem
    status = PluginStatus(
        name=name,
        distribution=installed.name if installed else "unknown",
        version=installed.version if installed else "unknown",
        state=state,
        reason=reason,
    )
    return Found(
        status, entry.module, entry.load, rank, rank[0] == 0, entry.name, package, installed
    )


def _origin(entry: EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else "unknown"


def _from_module(path: str, place: int, entry: EntryPoint | None, own: Collection[str]) -> Found:
    """Return a plugin of ``plugins.modules``.

    :param entry: the installed entry point of the same module, if there is one.
    """
    status = PluginStatus(name=path, distribution=path, version="module", state=PluginState.ACTIVE)
    load, rank = partial(importlib.import_module, path), (3, float(place), path)
    is_own = entry is not None and _is_own(entry, own)
    return Found(status, path, load, rank, is_own, entry.name if entry else "")


def without_third_parties(found: Iterable[Found], settings: PluginSettings) -> list[Found]:
    """Return ``found`` with every plugin disabled that is neither LMX's own nor required."""
    reason = "safe mode: it may be why the daemon kept dying"

    def disable_if_foreign(plugin: Found) -> Found:
        status = plugin.status
        is_kept = plugin.is_own or status.name in settings.required
        if is_kept or status.state is not PluginState.ACTIVE:
            return plugin
        return evolve(plugin, status=evolve(status, state=PluginState.DISABLED, reason=reason))

    return [disable_if_foreign(plugin) for plugin in found]


def bundled() -> set[str]:
    """Return the distributions whose plugins are LMX's own: those in its extra `all`."""
    # All of them: metadata left by a build in the working folder may hide the installed one.
    texts = [text for one in distributions(name=KERNEL) for text in one.requires or ()]
    requirements = map(Requirement, texts)
    bundled = (r for r in requirements if not r.marker or r.marker.evaluate({"extra": "all"}))
    return {KERNEL, *(canonicalize_name(one.name) for one in bundled)}
