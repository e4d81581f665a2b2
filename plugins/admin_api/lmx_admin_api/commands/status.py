"""``lmx status``."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table

from lmx_admin_api.commands.options import Flag, seconds
from lmx_kernel.cli.client import Client
from lmx_kernel.cli.terminal import AsJson, ConfigPath, console, gib, print_json

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
    return (
        f"LMX {found['version']}, up {seconds(found['uptime_s'])}"
        + "".join(f", {note}" for note in notes)
        + f"\nmemory: {gib(found['memory_reserved_bytes'])} reserved and "
        f"{gib(found['memory_observed_bytes'])} seen of {gib(found['memory_budget_bytes'])}, "
        f"pressure {found['memory_pressure']}\ndisk: {gib(found['disk_free_bytes'])} free"
    )


def _models(models: list[dict[str, Any]]) -> Table:
    table = Table(
        *("model", "state", "run", "wait", "tok/s", "first", "memory", "unload in", "crashes"),
        box=None,
    )
    for model in models:
        figures, expires_s = model["figures"], model["expires_in_s"]
        first_s = figures["first_token_p50_s"]
        table.add_row(
            model["id"],
            model["state"],
            str(model["running"]),
            str(model["waiting"]),
            f"{figures['tokens_per_s']:.1f}" if figures["tokens_per_s"] else "-",
            f"{first_s * 1000:.0f} ms" if first_s is not None else "-",
            gib(model["memory_bytes"]),
            "pinned" if model["pinned"] else "-" if expires_s is None else seconds(expires_s),
            str(figures["crashes"]),
        )
    return table


def _jobs(jobs: list[dict[str, Any]]) -> Table:
    table = Table("job", "state", "done", "", box=None)
    for job in jobs:
        share = f"{job['done'] / job['total']:.0%}" if job["total"] else "-"
        reason = job["error"]["message"] if job["error"] else job["note"]
        table.add_row(job["id"], job["state"], share, reason or job["key"])
    return table
