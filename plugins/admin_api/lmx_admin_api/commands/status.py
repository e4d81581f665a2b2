"""``lmx status``."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table

from lmx_kernel.cli.client import Client
from lmx_kernel.cli.terminal import AsJson, ConfigPath, Flag, console, format_seconds, print_json
from lmx_kernel.memory.sizes import format_bytes

LOOK_S = 1.0
MAX_JOBS = 8


def status(*, watch: Flag = False, json: AsJson = False, config: ConfigPath = None) -> None:
    """Show the daemon on one screen: memory, models, jobs.

    Parameters
    ----------
    watch
        Look again each second, until Ctrl-C.
    """
    client = Client.find(config)
    if json:
        print_json(client.get("/admin/status"))
    elif not watch:
        console.print(_screen(client))
    else:
        _watch(client)


def _watch(client: Client) -> None:
    with Live(_screen(client), console=console, auto_refresh=False) as live:
        try:
            while True:
                time.sleep(LOOK_S)
                live.update(_screen(client), refresh=True)
        except KeyboardInterrupt:
            return


def _screen(client: Client) -> RenderableType:
    found = client.get("/admin/status")
    parts: list[RenderableType] = [_heading(found)]
    if found["models"]:
        parts.append(_models(found["models"]))
    if jobs := client.get("/admin/jobs")["jobs"]:
        parts.append(_jobs(jobs[:MAX_JOBS]))
    return Group(*parts)


def _heading(found: Mapping[str, Any]) -> str:
    notes = [name for name in ("draining", "safe_mode") if found[name]]
    reserved, observed, budget = (
        format_bytes(found[f"memory_{what}_bytes"]) for what in ("reserved", "observed", "budget")
    )
    return (
        f"LMX {found['version']}, up {format_seconds(found['uptime_s'])}"
        + "".join(f", {note}" for note in notes)
        + f"\naddresses: {', '.join(found['addresses'])}"
        + f"\nmemory: {reserved} reserved and {observed} seen of {budget}, "
        f"pressure {found['memory_pressure']}\ndisk: {format_bytes(found['disk_free_bytes'])} free"
    )


def _models(models: list[dict[str, Any]]) -> Table:
    table = Table(
        *("model", "state", "run", "wait", "tok/s", "first", "memory", "unload in", "crashes"),
        box=None,
    )
    for model in models:
        figures = model["figures"]
        first_s = figures["first_token_p50_s"]
        table.add_row(
            model["id"],
            model["state"],
            str(model["running"]),
            str(model["waiting"]),
            f"{figures['tokens_per_s']:.1f}" if figures["tokens_per_s"] else "-",
            f"{first_s * 1000:.0f} ms" if first_s is not None else "-",
            format_bytes(model["memory_bytes"]),
            _unload_in(model),
            str(figures["crashes"]),
        )
    return table


def _unload_in(model: Mapping[str, Any]) -> str:
    if model["pinned"]:
        return "pinned"
    expires_s = model["expires_in_s"]
    return "-" if expires_s is None else format_seconds(expires_s)


def _jobs(jobs: list[dict[str, Any]]) -> Table:
    table = Table("job", "state", "done", "", box=None)
    for job in jobs:
        share = f"{job['done'] / job['total']:.0%}" if job["total"] else "-"
        reason = job["error"]["message"] if job["error"] else job["note"]
        table.add_row(job["id"], job["state"], share, reason or job["key"])
    return table
