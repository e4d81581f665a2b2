"""The command, from its parts."""

from __future__ import annotations

from cyclopts import App

from lmx_kernel.cli.terminal import command
from lmx_lmstudio_api.lms.install import install, uninstall
from lmx_lmstudio_api.lms.log import stream
from lmx_lmstudio_api.lms.models import get, load, ls, ps, unload
from lmx_lmstudio_api.lms.server import start, status, stop
from lmx_lmstudio_api.lms.status import overview, version


def _group(name: str, help_text: str, *apps: App) -> App:
    group = App(name=name, help=help_text, version_flags=())
    for one in apps:
        group.command(one)
    return group


app = _group(
    "lms",
    "LM Studio's commands, for LMX.",
    *map(command, (ls, ps, load, unload, get, version, install, uninstall)),
    command(overview, "status"),
    _group("server", "Start and stop the server.", *map(command, (start, stop, status))),
    _group("log", "Watch the server's log.", command(stream)),
)
