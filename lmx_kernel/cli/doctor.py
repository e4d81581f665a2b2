"""What `lmx doctor` looks at: machine, port, plugins, models."""

from __future__ import annotations

import platform
import shutil
import socket
from collections.abc import Iterator

from lmx_kernel import __version__
from lmx_kernel.http.settings import ServerSettings
from lmx_kernel.interfaces import Finding, PluginState
from lmx_kernel.kernel.boot import Booted
from lmx_kernel.memory.budget import MemorySettings, free_bytes, machine_bytes
from lmx_kernel.memory.ledger import GIB
from lmx_kernel.models.catalogue import Catalogue


def run_diagnostics(booted: Booted, catalogue: Catalogue) -> list[Finding]:
    """Look at everything that decides whether this machine can serve."""
    return [
        Finding(True, "lmx", f"{__version__} on Python {platform.python_version()}, {_platform()}"),
        _home(booted),
        _memory(booted),
        _port(booted.settings.get(ServerSettings)),
        *booted.plugins.findings(booted.settings, catalogue.cards),
        *_plugins(booted),
        *_models(catalogue),
    ]


def _platform() -> str:
    return f"{platform.system()} {platform.machine()}"


def _home(booted: Booted) -> Finding:
    home = booted.settings.home
    place = home if home.exists() else home.parent
    free = shutil.disk_usage(place).free / GIB
    return Finding(free > 1, "disk", f"{free:.1f} GiB free at {place}")


def _memory(booted: Booted) -> Finding:
    budget = booted.settings.get(MemorySettings).resolve()
    text = (
        f"models may take {budget / GIB:.1f} of {machine_bytes() / GIB:.1f} GiB; "
        f"{free_bytes() / GIB:.1f} GiB are free now"
    )
    return Finding(budget > 0, "memory", text)


def _port(server: ServerSettings) -> Finding:
    with socket.socket(socket.AF_INET6 if ":" in server.host else socket.AF_INET) as probe:
        answers = probe.connect_ex((server.host, server.port)) == 0
    state = "somebody listens there (a running daemon?)" if answers else "free"
    return Finding(True, "port", f"{server.host}:{server.port} is {state}")


def _plugins(booted: Booted) -> Iterator[Finding]:
    for status in booted.plugins.statuses:
        text = f"{status.distribution} {status.version} {status.state.value} {status.reason}"
        yield Finding(status.state is not PluginState.FAILED, f"plugin {status.name}", text.strip())
    if not booted.plugins.statuses:
        yield Finding(False, "plugins", "none are installed, so there is nothing to serve")


def _models(catalogue: Catalogue) -> Iterator[Finding]:
    usable = [card for card in catalogue.cards if not card.problem]
    yield Finding(bool(usable), "models", f"{len(usable)} can be loaded")
    for card in catalogue.cards:
        if card.problem:
            yield Finding(False, f"model {card.id}", card.problem)
