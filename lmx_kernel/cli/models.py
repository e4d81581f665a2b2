"""``lmx ls`` and ``lmx ps``."""

from __future__ import annotations

from collections.abc import Iterable

from cyclopts import App
from rich.table import Table

from lmx_kernel.cli.client import Client
from lmx_kernel.cli.terminal import AsJson, ConfigPath, command, console, print_json
from lmx_kernel.hookspecs import hookimpl
from lmx_kernel.kernel.boot import boot
from lmx_kernel.memory.sizes import format_bytes


def ls(config: ConfigPath = None, as_json: AsJson = False) -> None:
    """List the models on disk."""
    from lmx_kernel.kernel.assembly import scan  # noqa: PLC0415 - takes long, seldom needed

    cards = scan(boot(config)).cards
    if as_json:
        print_json(cards)
        return
    table = Table(
        "model", "size", "format", "quantization", "context", "backend", "status", box=None
    )
    for card in cards:
        table.add_row(
            card.id,
            format_bytes(card.size_bytes),
            card.format,
            card.quantization or "-",
            str(card.context_length),
            card.backend,
            card.problem or (f"ok, but {card.warning}" if card.warning else "ok"),
        )
    console.print(
        table if table.row_count else "No models found. `lmx doctor` says where I looked."
    )


def ps(config: ConfigPath = None, as_json: AsJson = False) -> None:
    """List what the running daemon has loaded."""
    status = Client.find(config).get("/health/status")
    if as_json:
        print_json(status["models"])
        return
    table = Table("model", "state", "running", "waiting", "memory", "pid", box=None)
    for model in status["models"]:
        table.add_row(
            model["id"],
            model["state"],
            str(model["running"]),
            str(model["waiting"]),
            format_bytes(model["memory_bytes"]),
            str(model["pid"] or "-"),
        )
    console.print(table if table.row_count else "Nothing was asked for yet.")


@hookimpl
def lmx_commands() -> Iterable[App]:
    """``lmx ls`` and ``lmx ps``."""
    return [command(ls), command(ps)]
