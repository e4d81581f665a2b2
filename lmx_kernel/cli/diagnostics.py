"""What ``lmx doctor`` looks at: the machine, ports, plugins, models, and the daemon if one runs."""

from __future__ import annotations

import platform
import shutil
import socket
import time
from collections.abc import Iterator

from lmx_kernel import __version__
from lmx_kernel.cli.client import Client
from lmx_kernel.config import Settings
from lmx_kernel.config.private_database import damaged_path
from lmx_kernel.errors import LmxError, UnavailableError
from lmx_kernel.http.settings import ServerSettings
from lmx_kernel.http.tls import TlsFileError
from lmx_kernel.interfaces import Finding, PluginState
from lmx_kernel.jobs.store import FILE as JOBS_FILE
from lmx_kernel.kernel.boot import Booted
from lmx_kernel.kernel.scan import make_backends
from lmx_kernel.memory.budget import MemorySettings
from lmx_kernel.memory.machine import free_bytes, machine_bytes
from lmx_kernel.memory.sizes import GIB, format_bytes
from lmx_kernel.models.catalogue import Catalogue
from lmx_kernel.models.model_table import ModelTables, fits
from lmx_kernel.stored.settings import FILE as ANSWERS_FILE

DAY_S = 86_400
TROUBLED = (PluginState.FAILED, PluginState.DEGRADED, PluginState.MUTED)
EXPIRES_SOON_S = 14 * DAY_S  # tools renew certificates earlier than that


def run_diagnostics(booted: Booted, catalogue: Catalogue) -> list[Finding]:
    """Look at everything that decides whether this machine can serve."""
    return [
        Finding(True, "lmx", f"{__version__} on Python {platform.python_version()}, {_platform()}"),
        _home(booted),
        _memory(booted),
        *_ports(booted.settings.get(ServerSettings)),
        *_certificate(booted.settings.get(ServerSettings)),
        *_damaged_databases(booted),
        *booted.plugins.findings(booted.settings, catalogue.cards),
        *_plugins(booted),
        *_daemon(booted.settings),
        *_models(catalogue),
        *_model_tables(booted.settings, catalogue),
    ]


def _platform() -> str:
    return f"{platform.system()} {platform.machine()}"


def _home(booted: Booted) -> Finding:
    home = booted.settings.home
    place = home if home.exists() else home.parent
    free = shutil.disk_usage(place).free
    return Finding(free > GIB, "disk", f"{format_bytes(free)} free at {place}")


def _memory(booted: Booted) -> Finding:
    backends = make_backends(booted)
    backends.probe_devices()
    budget = booted.settings.get(MemorySettings).resolve(backends.devices)
    text = (
        f"models may take {format_bytes(budget)} of {format_bytes(machine_bytes())}; "
        f"{format_bytes(free_bytes())} are free now"
    )
    return Finding(budget > 0, "memory", text)


def _ports(server: ServerSettings) -> Iterator[Finding]:
    for address in server.addresses:
        family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        with socket.socket(family) as probe:
            answers = probe.connect_ex((address.host, address.port)) == 0
        state = "somebody listens there (a running daemon?)" if answers else "free"
        yield Finding(True, "port", f"{address} is {state}")


def _certificate(server: ServerSettings) -> Iterator[Finding]:
    from lmx_kernel.daemon.checks import find_certificate  # noqa: PLC0415 - seldom needed

    try:
        certificate = find_certificate(server)
        if certificate is None:
            return
        left_s = certificate.expires_at() - time.time()
    except TlsFileError as error:
        yield Finding(False, "certificate", str(error))
        return
    days = f"{abs(left_s) / DAY_S:.0f} days"
    text = f"valid for {days} more" if left_s > 0 else f"expired {days} ago"
    yield Finding(left_s > EXPIRES_SOON_S, "certificate", f"{server.tls_cert}: {text}")


def _damaged_databases(booted: Booted) -> Iterator[Finding]:
    for name, file in (("jobs", JOBS_FILE), ("stored answers", ANSWERS_FILE)):
        aside = damaged_path(booted.settings.home / file)
        if aside.exists():
            text = f"their file was damaged, and a new one begun; delete {aside} when you wish"
            yield Finding(False, name, text)


def _plugins(booted: Booted) -> Iterator[Finding]:
    for status in booted.plugins.statuses:
        text = f"{status.distribution} {status.version} {status.state.value} {status.reason}"
        yield Finding(status.state is not PluginState.FAILED, f"plugin {status.name}", text.strip())
    if not booted.plugins.statuses:
        yield Finding(False, "plugins", "none are installed, so there is nothing to serve")


def _daemon(settings: Settings) -> Iterator[Finding]:
    """Yield what only the daemon knows, if one runs: which plugins fail in it, and which of its
    tasks are down.
    """
    client = Client.of(settings)
    try:
        status = client.get("/health/status")
        plugins = client.get("/admin/plugins")["plugins"]
    except UnavailableError:
        return
    except LmxError as error:
        yield Finding(False, "daemon", f"it cannot be asked: {error.message}")
        return
    yield Finding(True, "daemon", f"{status['version']} runs")
    for one in plugins:
        if one["state"] in TROUBLED:
            text = f"{one['state']} in the daemon: {one['reason']}"
            yield Finding(False, f"plugin {one['name']}", text)
    for task, problem in status["task_problems"].items():
        yield Finding(
            False, f"task {task}", f"it failed in the daemon and is tried again: {problem}"
        )


def _model_tables(settings: Settings, catalogue: Catalogue) -> Iterator[Finding]:
    """Yield what names in the config stand for no model here."""
    models = catalogue.by_id
    for number, table in enumerate(settings.get(ModelTables).tables, 1):
        if not any(fits(table.match, model) for model in models):
            yield Finding(False, f"[[model]] {number}", f'"{table.match}" matches no model')
        for alias in table.aliases or ():
            if any(alias.casefold() == model.casefold() for model in models):
                yield Finding(False, f"[[model]] {number}", f'the alias "{alias}" is a model\'s id')


def _models(catalogue: Catalogue) -> Iterator[Finding]:
    usable = [card for card in catalogue.cards if not card.problem]
    yield Finding(bool(usable), "models", f"{len(usable)} can be loaded")
    for card in catalogue.cards:
        if card.problem:
            yield Finding(False, f"model {card.id}", card.problem)
        elif card.warning:
            yield Finding(True, f"model {card.id}", f"can be loaded, but {card.warning}")
