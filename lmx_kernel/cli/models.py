"""``lmx ls`` and ``lmx ps``."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from cyclopts import App
from rich.table import Table

from lmx_kernel.cli.client import Client
from lmx_kernel.cli.terminal import AsJson, ConfigPath, command, console, print_json
from lmx_kernel.errors import LmxError
from lmx_kernel.memory.sizes import format_bytes

if TYPE_CHECKING:
    from lmx_kernel.types import ModelCard


def ls(config: ConfigPath = None, as_json: AsJson = False) -> None:
    """List the models on disk."""
    if as_json:
        print_json(_scan(config))
        return
    table = Table(
        "model", "size", "format", "quantization", "context", "backend", "status", box=None
    )
    for one in _models(config):
        table.add_row(
            one["id"],
            format_bytes(one["size_bytes"]),
            one["format"],
            one["quantization"] or "-",
            str(one["context_length"]),
            one["backend"],
            one["problem"] or (f"ok, but {one['warning']}" if one["warning"] else "ok"),
        )
    console.print(
        table if table.row_count else "No models found. `lmx doctor` says where I looked."
    )


def _models(config: Path | None) -> list[Any]:
    """Return the models that the daemon lists; without one, what is on disk."""
    try:
        found: list[Any] = Client.find(config).get("/admin/models", fit="false")["models"]
    except LmxError:
        found = msgspec.json.decode(msgspec.json.encode(_scan(config), enc_hook=str))
    return found


def _scan(config: Path | None) -> list[ModelCard]:
    from lmx_kernel.kernel.boot import boot  # noqa: PLC0415 - takes long
    from lmx_kernel.kernel.scan import scan  # noqa: PLC0415 - takes long

    return scan(boot(config)).cards


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


def lmx_commands() -> Iterable[App]:
    """``lmx ls`` and ``lmx ps``."""
    return [command(ls), command(ps)]
