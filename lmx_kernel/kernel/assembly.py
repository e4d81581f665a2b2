"""Assembles a kernel from config and plugins. There is no global state: each call makes one."""

from __future__ import annotations

from attrs import frozen

from lmx_kernel.config import Settings
from lmx_kernel.http.context import caller
from lmx_kernel.http.surface_table import SurfaceTable
from lmx_kernel.jobs.jobs import Jobs
from lmx_kernel.jobs.store import FILE as JOBS_FILE
from lmx_kernel.kernel.boot import Booted
from lmx_kernel.kernel.extensions import Extensions
from lmx_kernel.kernel.facade import KernelFacade, ModelParts, Observation
from lmx_kernel.kernel.model_settings import ModelSettingsEditor
from lmx_kernel.kernel.scan import make_backends, make_catalogue
from lmx_kernel.memory.budget import MemorySettings
from lmx_kernel.memory.guard import Guard
from lmx_kernel.memory.ledger import Ledger
from lmx_kernel.memory.machine import free_bytes
from lmx_kernel.models.backends import Backends
from lmx_kernel.models.catalogue import Catalogue
from lmx_kernel.models.saved_settings import SavedSettings, saved_file
from lmx_kernel.observe.bus import Bus
from lmx_kernel.observe.log import log_event
from lmx_kernel.observe.statistics import Statistics
from lmx_kernel.routing.placement import Placement
from lmx_kernel.runtime.effective_settings import EffectiveSettings
from lmx_kernel.runtime.lifecycle import Lifecycle


@frozen(kw_only=True)
class Assembly:
    """The parts of the kernel that the daemon starts and stops."""

    kernel: KernelFacade
    backends: Backends
    catalogue: Catalogue
    lifecycle: Lifecycle
    guard: Guard
    jobs: Jobs
    bus: Bus
    extensions: Extensions
    surfaces: SurfaceTable


def assemble(booted: Booted) -> Assembly:
    """Build everything except the HTTP server. Needs a running event loop."""
    settings, plugins = booted.settings, booted.plugins
    statistics = Statistics()
    bus = Bus(plugins.observers(), log_event, statistics.on_event, calls=plugins.calls)
    backends = make_backends(booted)
    saved = SavedSettings(saved_file(settings.home))
    effective = EffectiveSettings(settings, backends, saved)
    catalogue = make_catalogue(booted, backends, effective)
    ledger = Ledger(lambda: settings.get(MemorySettings).resolve(backends.devices), free_bytes)
    find = catalogue.find
    lifecycle = Lifecycle(settings, ledger, backends, effective, find, saved, bus.publish)
    guard = _make_guard(settings, lifecycle, bus)
    jobs = Jobs(settings.home / JOBS_FILE, bus.publish, catalogue.refresh)
    level, watch = (lambda: guard.level.value), plugins.watch
    placement = Placement(
        settings, catalogue, lifecycle, effective, statistics, level, caller, watch
    )
    bus.add_listener(placement.on_event)
    extensions = Extensions(booted, catalogue, lifecycle, placement, bus)
    models = ModelSettingsEditor(catalogue, lifecycle, effective, saved, backends)
    kernel = KernelFacade(
        booted,
        ModelParts(catalogue, lifecycle, placement, models),
        extensions,
        jobs,
        surfaces := SurfaceTable(),
        Observation(bus, statistics, guard),
    )
    return Assembly(
        kernel=kernel,
        backends=backends,
        catalogue=catalogue,
        lifecycle=lifecycle,
        guard=guard,
        jobs=jobs,
        bus=bus,
        extensions=extensions,
        surfaces=surfaces,
    )


def _make_guard(settings: Settings, lifecycle: Lifecycle, bus: Bus) -> Guard:
    return Guard(
        holders=lifecycle.instances.values,
        settings=lambda: settings.get(MemorySettings),
        budget_bytes=lambda: lifecycle.ledger.budget_bytes,
        publish=bus.publish,
    )
