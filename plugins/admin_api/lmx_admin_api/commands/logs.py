"""``lmx logs``."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from lmx_kernel.cli.client import Client
from lmx_kernel.cli.terminal import AsJson, ConfigPath, console, print_json

LOOK_S = 0.5
MAX_LINES = 10_000
Level = Literal["debug", "info", "warning", "error"]
Follow = Annotated[bool, Parameter(name=("--follow", "-f"), negative="")]


def logs(
    *,
    follow: Follow = False,
    limit: int = 100,
    level: Level | None = None,
    event: str | None = None,
    model: str | None = None,
    request_id: str | None = None,
    json: AsJson = False,
    config: ConfigPath = None,
) -> None:
    """Print the end of the daemon's log.

    Parameters
    ----------
    follow
        Go on with what comes, until Ctrl-C.
    limit
        Lines at most.
    level
        The least one.
    event
        Only lines of this event, such as request or audit.
    model
        Only lines of this model.
    request_id
        Only lines of this request.
    """
    client = Client.find(config)
    query = {"level": level, "event": event, "model": model, "request_id": request_id}
    lines = client.get("/admin/logs", limit=limit, **query)["lines"]
    _print(lines, as_json=json)
    try:
        for more in _following(client, query, lines) if follow else ():
            _print(more, as_json=json)
    except KeyboardInterrupt:
        return


def _following(
    client: Client, query: dict[str, Any], lines: list[dict[str, Any]]
) -> Iterator[list[dict[str, Any]]]:
    """Yield what came since ``lines``; those of the last moment come again and are told apart."""
    while True:
        time.sleep(LOOK_S)
        since = lines[-1]["timestamp"] if lines else None
        known = [line for line in lines if line["timestamp"] == since]
        fresh = client.get("/admin/logs", limit=MAX_LINES, since=since, **query)["lines"]
        yield [line for line in fresh if line not in known]
        lines = fresh or lines


def _print(lines: list[dict[str, Any]], *, as_json: bool) -> None:
    for line in lines:
        if as_json:
            print_json(line)
        else:
            rest = {k: v for k, v in line.items() if k not in ("timestamp", "level", "event")}
            pairs = " ".join(f"{name}={value}" for name, value in rest.items() if value is not None)
            console.print(
                f"{line['timestamp'][:19]} {line['level']:<7} {line['event']} {pairs}",
                markup=False,
                soft_wrap=True,
            )
