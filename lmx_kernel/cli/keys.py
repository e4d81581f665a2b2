"""``lmx key``: who may use the server."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any

from attrs import asdict, evolve, frozen
from cyclopts import App, Parameter
from rich.table import Table

from lmx_kernel.cli.client import Client
from lmx_kernel.cli.terminal import console, print_error
from lmx_kernel.config import ConfigError, find_home
from lmx_kernel.errors import InvalidRequestError, LmxError
from lmx_kernel.plugins.settings import RequiredPluginError
from lmx_kernel.types import DEFAULT_TERMS, Priority, Terms

if TYPE_CHECKING:
    from lmx_kernel.access.keys import KeyFile

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


@Parameter(name="*")
@frozen(kw_only=True)
class Given:
    """The terms that are given to a command; those that are None are left as they are."""

    weight: Annotated[
        float | None, Parameter(help="Its share of a busy model, relative to other keys; 1.")
    ] = None
    priority: Annotated[
        Priority | None, Parameter(help="Of its requests: low, normal or high.")
    ] = None
    max_running: Annotated[
        int | None, Parameter(help="Answers of one model at once; 0 is any number.")
    ] = None
    max_waiting: Annotated[
        int | None, Parameter(help="Requests that wait for one model; 0 is any number.")
    ] = None
    tokens_per_minute: Annotated[
        int | None, Parameter(help="Tokens that are computed for it; 0 is any number.")
    ] = None

    def change(self, terms: Terms) -> Terms:
        """Return these terms with what is given.

        :raises InvalidRequestError: a value is out of its bounds.
        """
        given = {name: value for name, value in asdict(self).items() if value is not None}
        bounds = ("max_running", "max_waiting", "tokens_per_minute")
        given = {
            name: (value or None) if name in bounds else value for name, value in given.items()
        }
        try:
            return evolve(terms, **given)
        except ValueError as error:
            raise InvalidRequestError(str(error.args[0])) from None


AS_THEY_ARE = Given()


@app.command
def add(name: str, *, scopes: Scopes = DEFAULT_SCOPES, given: Given = AS_THEY_ARE) -> None:
    """Make a key and print its token, which is shown only now."""
    if scopes != DEFAULT_SCOPES:
        _check(scopes)
    token = _file().add(name, scopes, given.change(DEFAULT_TERMS))
    print(token)  # noqa: T201 - for scripts, alone on standard output
    print_error("Keep it: it is stored nowhere.")


@app.command(name="set")
def set_terms(name: str, *, given: Given = AS_THEY_ARE) -> None:
    """Change a key's share of the models; a running daemon follows within a second."""
    key = _file().change(name, given.change)
    console.print(f"{key.name}: {_told(key.terms)}")


@app.command(name="list")
def list_keys() -> None:
    """List the keys: names, scopes, terms, when they were made, and what they have used since the
    daemon's start.
    """
    table = Table("name", "scopes", "terms", "created", "requests", "tokens", box=None)
    keys = _file().read()
    used = _usage() if keys else None
    for key in keys:
        usage = (used or {}).get(key.name, {})
        tokens = usage.get("prompt_tokens", 0) + usage.get("completion_tokens", 0)
        figures = (str(usage.get("requests", 0)), str(tokens)) if used is not None else ("?", "?")
        created = f"{key.created:%Y-%m-%d %H:%M} UTC"
        table.add_row(key.name, " ".join(key.scopes), _told(key.terms), created, *figures)
    console.print(table if table.row_count else f"No keys. {OPEN}")


@app.command
def revoke(name: str) -> None:
    """Make a key worthless, at once."""
    left = _file().revoke(name)
    console.print(f"{name} is worthless now." if left else f"{name} was the last key. {OPEN}")


def lmx_commands() -> Iterable[App]:
    """``lmx key``."""
    return [app]


def _file() -> KeyFile:
    from lmx_kernel.access.keys import KeyFile  # noqa: PLC0415 - takes long

    return KeyFile(find_home())


def _told(terms: Terms) -> str:
    """Return terms in words."""
    parts = [f"{terms.priority} priority", f"weight {terms.weight:g}"]
    for bound in ("max_running", "max_waiting", "tokens_per_minute"):
        if (value := getattr(terms, bound)) is not None:
            parts.append(f"{bound.replace('_', ' ')} {value}")
    return ", ".join(parts)


def _usage() -> dict[str, Any] | None:
    """Return by name what keys have used; None if no daemon tells."""
    try:
        status = Client.find().get("/admin/status")
    except (LmxError, ConfigError, RequiredPluginError):
        return None
    return {one["name"]: one for one in status.get("keys", ())}


def _check(scopes: tuple[str, ...]) -> None:
    """Make sure that each scope is one that a surface asks for.

    :raises InvalidRequestError: it is not.
    """
    import asyncio  # noqa: PLC0415 - takes long, seldom needed

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
    from lmx_kernel.access.door import UNDECLARED_SCOPE  # noqa: PLC0415 - as above
    from lmx_kernel.kernel.assembly import assemble  # noqa: PLC0415 - as above
    from lmx_kernel.kernel.boot import boot  # noqa: PLC0415 - as above

    booted = boot()
    surfaces = booted.plugins.api_surfaces(assemble(booted).kernel)
    return {getattr(surface, "scope", UNDECLARED_SCOPE) for surface in surfaces} - {""}
