"""``lmx plugin``: the life of plugins, in the running daemon if there is one; and ``lmx plugins``.

A command that asks for something waits for no plugin: the daemon knows what runs.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec
from cyclopts import App
from rich.table import Table

from lmx_kernel.cli.client import Client
from lmx_kernel.cli.terminal import (
    AsJson,
    ConfigPath,
    Flag,
    command,
    console,
    print_error,
    print_json,
)
from lmx_kernel.errors import NotFoundError, UnavailableError
from lmx_kernel.plugins.registrations import WORKER_GROUPS, registrations

LOOK_S = 1.0
app = App(name="plugin", help="Install, look at and change plugins, also while the daemon runs.")


@app.command(name="list")
def list_plugins(config: ConfigPath = None, as_json: AsJson = False) -> None:
    """List the plugins as the running daemon has them, and what else packages register."""
    found = _plugins(config)
    if as_json:
        print_json(found)
        return
    table = Table("plugin", "distribution", "version", "state", "hooks / reason", box=None)
    for one in found:
        detail = one["reason"] or ", ".join(one["hooks"])
        table.add_row(one["name"], one["distribution"], one["version"], one["state"], detail)
    console.print(table if table.row_count else "No plugins are installed.")
    others = Table("group", "name", "distribution", "version", box=None)
    for other in sorted(registrations((WORKER_GROUPS,))):
        others.add_row(other.group, other.name, other.distribution, other.version)
    if others.row_count:
        console.print(others)


@app.command
def show(name: str, config: ConfigPath = None, as_json: AsJson = False) -> None:
    """Show a plugin: its state, its last error, and how long its hooks take."""
    found = [one for one in _plugins(config) if one["name"] == name]
    if not found:
        raise NotFoundError(f"no plugin is called {name}")
    [plugin] = found
    if as_json:
        print_json(plugin)
        return
    for key in ("distribution", "version", "installed_version", "state", "reason", "last_error"):
        if plugin[key]:
            console.print(f"{key.replace('_', ' ')}: {plugin[key]}")
    table = Table("hook", "calls", "failed", "mean ms", "worst ms", box=None)
    for one in plugin["times"]:
        values = (one["calls"], one["failures"], one["mean_ms"], one["worst_ms"])
        table.add_row(one["hook"], *map(str, values))
    console.print(table if table.row_count else f"hooks: {', '.join(plugin['hooks'])}")


@app.command
def rescan(config: ConfigPath = None, as_json: AsJson = False) -> None:
    """Use what was installed since, in its new version, and take out what is gone."""
    added = Client.find(config).post("/admin/plugins/rescan")["plugins"]
    if as_json:
        print_json(added)
        return
    for one in added:
        console.print(f"{one['name']} {one['version']} is in use now.")
    console.print(f"{len(added)} plugins are new." if not added else "That is all.")


@app.command
def enable(name: str, config: ConfigPath = None) -> None:
    """Use a plugin that is disabled, until the next start."""
    plugin = Client.find(config).post(f"/admin/plugins/{name}/enable")
    console.print(f"{name} {plugin['version']} is {plugin['state']}.")


@app.command
def disable(name: str, config: ConfigPath = None) -> None:
    """Stop using a plugin until the next start; `[plugins] disabled` does so for good."""
    plugin = Client.find(config).post(f"/admin/plugins/{name}/disable")
    console.print(f"{name} {plugin['version']} is {plugin['state']}.")


@app.command
def trace(
    name: str, *, follow: Flag = False, config: ConfigPath = None, as_json: AsJson = False
) -> None:
    """Show the last calls of a plugin's hooks and objects.

    Parameters
    ----------
    follow
        Look again each second, until Ctrl-C.
    """
    client, last = Client.find(config), 0
    while True:
        calls = client.get(f"/admin/plugins/{name}")["calls"]
        for one in (one for one in calls if one["id"] > last):
            _print_call(one, as_json=as_json)
            last = one["id"]
        if not follow:
            return
        try:
            time.sleep(LOOK_S)
        except KeyboardInterrupt:
            return


def lmx_commands() -> Iterable[App]:
    """``lmx plugin``, and its short form ``lmx plugins``."""
    return [app, command(list_plugins, "plugins")]


def _print_call(call: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(call)
        return
    at = time.strftime("%H:%M:%S", time.localtime(call["at"]))
    console.print(f"{at} {call['hook']} {call['took_ms']:.1f} ms {call['error']}".rstrip())


def _plugins(config: Path | None) -> list[Any]:
    """Return what the daemon lists; without one, what would be loaded."""
    try:
        found: list[Any] = Client.find(config).get("/admin/plugins")["plugins"]
    except UnavailableError:
        from lmx_kernel.kernel.boot import boot  # noqa: PLC0415 - takes long, seldom needed

        print_error("No daemon runs; this is what it would load.")
        statuses = boot(config).plugins.statuses
        found = msgspec.json.decode(msgspec.json.encode(statuses))
    return found
