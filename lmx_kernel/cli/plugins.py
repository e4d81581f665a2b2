"""``lmx plugins`` and ``lmx install``."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Annotated

from cyclopts import App, Parameter
from rich.table import Table

from lmx_kernel.cli.install import InstallError, install, registrations
from lmx_kernel.cli.terminal import AsJson, ConfigPath, command, console, print_error, print_json
from lmx_kernel.hookspecs import GROUP, hookimpl
from lmx_kernel.kernel.boot import boot


def plugins(config: ConfigPath = None, as_json: AsJson = False) -> None:
    """List the installed plugins, why one is not active, and what else packages register."""
    statuses = boot(config).plugins.statuses
    if as_json:
        print_json(statuses)
        return
    table = Table("plugin", "distribution", "version", "state", "hooks / reason", box=None)
    for status in statuses:
        detail = status.reason or ", ".join(status.hooks)
        table.add_row(status.name, status.distribution, status.version, status.state.value, detail)
    console.print(table if table.row_count else "No plugins are installed.")
    others = Table("group", "name", "distribution", "version", box=None)
    for one in sorted(one for one in registrations() if one.group != GROUP):
        others.add_row(one.group, one.name, one.distribution, one.version)
    if others.row_count:
        console.print(others)


def install_plugin(
    *requirements: Annotated[str, Parameter(allow_leading_hyphen=True, help="As pip takes them.")],
) -> None:
    """Install plugins with pip; a running daemon uses new architectures at the next load."""
    if not requirements:
        print_error("name a package, a file or a folder")
        sys.exit(2)
    try:
        added = install(list(requirements))
    except InstallError as error:
        print_error(str(error))
        sys.exit(1)
    for one in added:
        when = "at the next start" if one.group == GROUP else "at the next load"
        console.print(f"{one.distribution} {one.version}: {one.group} {one.name}, {when}")
    if not added:
        console.print("Nothing new was registered.")


@hookimpl
def lmx_commands() -> Iterable[App]:
    """``lmx plugins`` and ``lmx install``."""
    return [command(plugins), command(install_plugin, "install")]
