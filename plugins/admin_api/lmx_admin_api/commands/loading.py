"""Watching a load that goes on in the daemon."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from threading import Thread
from typing import Any

from lmx_kernel.cli.client import Client
from lmx_kernel.cli.progress import LOOK_S, leaving, progress_bar
from lmx_kernel.errors import NotFoundError


def follow_load(client: Client, body: Mapping[str, Any], *, quiet: bool) -> Any:
    """Load a model, show how much is done, and return the model's status.

    :raises LmxError: it cannot be loaded.
    """
    with progress_bar(body["model"], quiet=quiet) as bars, leaving("`lmx status` shows it"):
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
