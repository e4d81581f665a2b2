"""``lmx load``, ``unload``, ``rm`` and ``estimate``."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from json import dumps
from typing import Any

from rich.table import Table

from lmx_admin_api.commands.loading import follow_load
from lmx_kernel.cli.client import Client
from lmx_kernel.cli.terminal import (
    AsJson,
    ConfigPath,
    Flag,
    console,
    format_seconds,
    given,
    print_json,
)
from lmx_kernel.memory.sizes import format_bytes


def load(
    model: str,
    *,
    context_length: int | None = None,
    parallel: int | None = None,
    ttl: float | None = None,
    pin: Flag = False,
    backend: str | None = None,
    json: AsJson = False,
    config: ConfigPath = None,
) -> None:
    """Load a model, and wait until it is ready.

    Parameters
    ----------
    context_length
        Tokens that one request may use.
    parallel
        Requests that run at once.
    ttl
        Unload it after so many seconds without a request.
    pin
        Never unload it to make room for another.
    backend
        Where several could run it.
    """
    wanted = {"context_length": context_length, "parallel": parallel, "ttl_s": ttl, "pin": pin}
    body = given(model=model, backend=backend, **wanted)
    status = follow_load(Client.find(config), body, quiet=json)
    if json:
        print_json(status)
        return
    console.print(
        f"{status['id']} is ready: context {status['context_length']}, "
        f"{status['parallel']} at once, {format_bytes(status['memory_bytes'])}"
        + (f", unloaded after {format_seconds(ttl)} without a request." if ttl else ".")
    )


def unload(model: str, *, json: AsJson = False, config: ConfigPath = None) -> None:
    """Unload a model; what it is doing may be finished."""
    state = Client.find(config).post("/admin/models/unload", {"model": model})
    _tell(state, as_json=json)


def rm(model: str, *, json: AsJson = False, config: ConfigPath = None) -> None:
    """Delete a model from disk, and no file beside it; never while it is loaded."""
    state = Client.find(config).delete(f"/admin/models/{model}")
    _tell(state, as_json=json)
    if state["left"] and not json:
        console.print(f"Left where it was: {', '.join(state['left'])}.")


def show(model: str, *, json: AsJson = False, config: ConfigPath = None) -> None:
    """Show the settings in force for a model, and who has set each.

    Parameters
    ----------
    model
        A model, or one of its profiles as NAME:PROFILE.
    """
    view = Client.find(config).get(f"/admin/models/{model}/settings")
    if json:
        print_json(view)
        return
    table = Table("setting", "value", "set by", box=None)
    for key, one in view["settings"].items():
        value = one["value"]
        table.add_row(key, "-" if value is None else dumps(value), one["source"])
    console.print(f"{view['model']}:")
    console.print(table)


def estimate(
    model: str,
    *,
    context_length: int | None = None,
    parallel: int | None = None,
    backend: str | None = None,
    json: AsJson = False,
    config: ConfigPath = None,
) -> None:
    """Say what loading a model would take; exit 1 if it cannot be loaded now.

    Parameters
    ----------
    context_length
        Tokens that one request may use.
    parallel
        Requests that run at once.
    backend
        Where several could run it.
    """
    body = given(model=model, context_length=context_length, parallel=parallel, backend=backend)
    found = Client.find(config).post("/admin/models/estimate", body)
    if json:
        print_json(found)
    else:
        _print_estimate(found)
    sys.exit(0 if found["fits"] else 1)


def _print_estimate(found: Mapping[str, Any]) -> None:
    options = found["options"]
    weights, cache, overhead = (
        format_bytes(found["estimate"][f"{part}_bytes"])
        for part in ("weights", "cache", "overhead")
    )
    available, budget = map(format_bytes, (found["available_bytes"], found["budget_bytes"]))
    console.print(
        f"{found['model']}: {format_bytes(found['needed_bytes'])} for context "
        f"{options['context_length']}, {options['parallel']} at once\n"
        f"weights {weights}, cache {cache}, overhead {overhead}\n"
        f"{available} of {budget} are free"
        + (f"; unloads {', '.join(found['unloads'])}" if found["unloads"] else "")
    )
    console.print("It fits." if found["fits"] else f"It does not fit: {found['problem']}.")


def _tell(state: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(state)
    else:
        console.print(f"{state['model']} is {state['state']}.")
