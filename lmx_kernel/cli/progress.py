"""Progress bars for work that goes on in the daemon."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.filesize import decimal
from rich.progress import BarColumn, Progress, TextColumn

from lmx_kernel.cli.client import Client
from lmx_kernel.cli.terminal import PlainConsole, format_seconds, print_error
from lmx_kernel.errors import ConflictError, from_code

LOOK_S = 0.3
INTERRUPTED = 130  # as shells have it: 128 and SIGINT
_COLUMNS = (
    TextColumn("{task.description}", markup=False),
    BarColumn(),
    TextColumn("{task.fields[text]}", markup=False),
)


def follow_job(
    client: Client, path: str, body: Mapping[str, Any], again: str, *, quiet: bool
) -> Any:
    """Start a job, show its progress until it ends, and return it as it is then.

    :param path: where ``body`` starts it; the job is found there by its id.
    :param again: the command that shows it again, for whoever leaves before the end.
    :param quiet: show nothing.
    :raises LmxError: it failed, or was stopped.
    """
    from lmx_kernel.interfaces import PENDING  # noqa: PLC0415 - takes long

    with leaving(f"`{again}` shows it again"):
        job = client.post(path, body)
        with progress_bar(job["kind"], quiet=quiet) as bars:
            while job["state"] in PENDING:
                bars.update(
                    bars.task_ids[0],
                    completed=job["done"],
                    total=job["total"],
                    description=job["note"] or job["state"],
                    text=_pace(job),
                )
                time.sleep(LOOK_S)
                job = client.get(f"{path}/{job['id']}")
    if error := job["error"]:
        raise from_code(error["code"], error["message"])
    if job["state"] != "done":
        raise ConflictError(f"the {job['kind']} was {job['state']}")
    return job


def progress_bar(title: str, *, quiet: bool) -> Progress:
    """Return a bar of one task with the field ``text``; only a terminal shows it.

    :param quiet: show nothing.
    """
    terminal = PlainConsole(stderr=True)
    is_off = quiet or not terminal.is_terminal
    bars = Progress(*_COLUMNS, console=terminal, transient=True, disable=is_off)
    bars.add_task(title, total=None, text="")
    return bars


@contextmanager
def leaving(hint: str) -> Iterator[None]:
    """On Ctrl-C, end the command and say that the work goes on in the daemon.

    :param hint: how to see it again.
    """
    try:
        yield
    except KeyboardInterrupt:
        print_error(f"It goes on in the daemon; {hint}.")
        sys.exit(INTERRUPTED)


def _pace(job: Mapping[str, Any]) -> str:
    def show(value: float) -> str:
        return decimal(int(value)) if job["unit"] == "bytes" else f"{value:g} {job['unit']}"

    parts = [show(job["done"]) + (f" of {show(job['total'])}" if job["total"] else "")]
    if job["rate_per_s"] and job["unit"] == "bytes":
        parts.append(f"{show(job['rate_per_s'])}/s")
    if job["remaining_s"] is not None:
        parts.append(f"{format_seconds(job['remaining_s'])} left")
    return ", ".join(parts)
