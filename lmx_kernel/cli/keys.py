"""``lmx key``: who may use the server."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Annotated

from cyclopts import App, Parameter
from rich.table import Table

from lmx_kernel.access.door import UNDECLARED_SCOPE
from lmx_kernel.access.keys import KeyFile
from lmx_kernel.cli.terminal import console, print_error
from lmx_kernel.config import ConfigError, find_home
from lmx_kernel.errors import InvalidRequestError
from lmx_kernel.hookspecs import hookimpl
from lmx_kernel.kernel.boot import boot
from lmx_kernel.plugins.settings import RequiredPluginError

DEFAULT_SCOPES = ("inference",)
Scopes = Annotated[
    tuple[str, ...],
    Parameter(name="--scope", negative="", help="What it is good for, such as admin."),
]
OPEN = (
    "Unless server.api_key is set, every program on this machine may do everything, "
    "and no other machine may."
)

app = App(name="key", help="Say who may use the server; a running daemon knows at once.")


@app.command
def add(name: str, *, scopes: Scopes = DEFAULT_SCOPES) -> None:
    """Make a key and print its token, which is shown only now."""
    if scopes != DEFAULT_SCOPES:
        _check(scopes)
    token = KeyFile(find_home()).add(name, scopes)
    print(token)  # noqa: T201 - for scripts, alone on standard output
    print_error("Keep it: it is stored nowhere.")


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


@hookimpl
def lmx_commands() -> Iterable[App]:
    """``lmx key``."""
    return [app]


def _check(scopes: tuple[str, ...]) -> None:
    """Make sure that each scope is one that a surface asks for.

    :raises InvalidRequestError: it is not.
    """
    try:
        known = asyncio.run(_known_scopes())
    except (ConfigError, RequiredPluginError):
        print_error("The scopes are not checked, since the config is wrong (`lmx config check`).")
        return
    for scope in scopes:
        if scope not in known:
            there = ", ".join(sorted(known)) or "none, since no plugin serves anything"
            raise InvalidRequestError(f"no scope is called {scope!r}; there are: {there}")


async def _known_scopes() -> set[str]:
    """Return the scopes that the surfaces of the active plugins ask for."""
    from lmx_kernel.kernel.assembly import assemble  # noqa: PLC0415 - takes long, seldom needed

    booted = boot()
    surfaces = booted.plugins.api_surfaces(assemble(booted).kernel)
    return {getattr(surface, "scope", UNDECLARED_SCOPE) for surface in surfaces} - {""}
