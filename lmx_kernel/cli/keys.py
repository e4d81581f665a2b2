"""``lmx key``: who may use the server."""

from __future__ import annotations

import sys
from typing import Annotated, Literal

from cyclopts import App, Parameter
from rich.table import Table

from lmx_kernel.access.keys import KeyFile
from lmx_kernel.cli.terminal import console
from lmx_kernel.config import find_home

Scope = Literal["inference", "admin"]
OPEN = (
    "Unless server.api_key is set, every program on this machine may do everything, "
    "and no other machine may."
)

app = App(name="key", help="Say who may use the server; a running daemon knows at once.")


@app.command
def add(
    name: str, *, scope: Annotated[tuple[Scope, ...], Parameter(negative="")] = ("inference",)
) -> None:
    """Make a key and print its token, which is shown only now."""
    token = KeyFile(find_home()).add(name, scope)
    print(token)  # noqa: T201 - for scripts, alone on standard output
    print("Keep it: it is stored nowhere.", file=sys.stderr)  # noqa: T201


@app.command(name="list")
def list_keys() -> None:
    """List the keys: names, scopes, when they were made."""
    table = Table("name", "scopes", "created", box=None)
    for key in KeyFile(find_home()).read():
        table.add_row(key.name, " ".join(key.scopes), f"{key.created:%Y-%m-%d %H:%M} UTC")
    console.print(table if table.row_count else f"No keys. {OPEN}")


@app.command
def revoke(name: str) -> None:
    """Make a key worthless, at once."""
    left = KeyFile(find_home()).revoke(name)
    console.print(f"{name} is worthless now." if left else f"{name} was the last key. {OPEN}")
