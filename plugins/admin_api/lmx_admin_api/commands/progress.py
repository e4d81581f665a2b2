"""Watching work that goes on in the daemon."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from threading import Thread
from typing import Any, NoReturn

from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, Progress, TextColumn

from lmx_admin_api.commands.options import seconds
from lmx_kernel.cli.client import Client
from lmx_kernel.errors import ConflictError, NotFoundError, from_code
from lmx_kernel.interfaces import PENDING

LOOK_S = 0.3
INTERRUPTED = 130  # as shells have it: 128 and SIGINT
_COLUMNS = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[text]}"))


def follow_job(
    client: Client, path: str, body: Mapping[str, Any], again: str, *, quiet: bool
) -> Any:
    """Start a job, show its progress until it ends, and return it as it is then.

    :param path: where ``body`` starts it.
    :param again: the command that shows it again, for whoever leaves before the end.
    :raises LmxError: it failed, or was stopped.
    """
    with _leaving(f"`{again}` shows it again"):
        job = client.post(path, body)
        return _follow(client, job, quiet=quiet)


def _follow(client: Client, job: Any, *, quiet: bool) -> Any:
    with _bar(job["kind"], quiet=quiet) as bars:
        while job["state"] in PENDING:
            bars.update(
                bars.task_ids[0],
                completed=job["done"],
                total=job["total"],
                description=job["note"] or job["state"],
                text=_pace(job),
            )
            time.sleep(LOOK_S)
            job = client.get(f"/admin/jobs/{job['id']}")
    if error := job["error"]:
        raise from_code(error["code"], error["message"])
    if job["state"] != "done":
        raise ConflictError(f"the {job['kind']} was {job['state']}")
    return job


def follow_load(client: Client, body: Mapping[str, Any], *, quiet: bool) -> Any:
    """Load a model, show how much is done, and return the model's status.

    :raises LmxError: it cannot be loaded.
    """
    with _bar(body["model"], quiet=quiet) as bars, _leaving("`lmx status` shows it"):
        loading = _begin(lambda: client.post("/admin/models/load", body))
        while not loading.done():
            share = _loaded_share(client, body["model"])
            bars.update(bars.task_ids[0], completed=share, total=1, text=f"{share:.0%}")
            time.sleep(LOOK_S)
        return loading.result()


def _begin(call: Callable[[], Any]) -> Future[Any]:
    """Make a call in a thread that nobody waits for when the command ends."""
    outcome: Future[Any] = Future()

    def make() -> None:
        try:
            outcome.set_result(call())
        except BaseException as error:  # noqa: BLE001 - raised where the outcome is asked for
            outcome.set_exception(error)

    Thread(target=make, daemon=True).start()
    return outcome


def _loaded_share(client: Client, model: str) -> float:
    try:
        status = client.get(f"/admin/models/{model}", fit="false")["status"]
    except NotFoundError:  # the load looks for it on disk
        return 0.0
    return float(status["loaded_share"]) if status else 0.0


def _bar(title: str, *, quiet: bool) -> Progress:
    terminal = Console(stderr=True)
    is_off = quiet or not terminal.is_terminal
    bars = Progress(*_COLUMNS, console=terminal, transient=True, disable=is_off)
    bars.add_task(title, total=None, text="")
    return bars


@contextmanager
def _leaving(hint: str) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        _leave(f"It goes on in the daemon; {hint}.")


def _leave(message: str) -> NoReturn:
    sys.stderr.write(message + "\n")
    sys.exit(INTERRUPTED)


def _pace(job: Mapping[str, Any]) -> str:
    def show(value: float) -> str:
        return decimal(int(value)) if job["unit"] == "bytes" else f"{value:g} {job['unit']}"

    parts = [show(job["done"]) + (f" of {show(job['total'])}" if job["total"] else "")]
    if job["rate_per_s"] and job["unit"] == "bytes":
        parts.append(f"{show(job['rate_per_s'])}/s")
    if job["remaining_s"] is not None:
        parts.append(f"{seconds(job['remaining_s'])} left")
    return ", ".join(parts)
