"""What all commands have in common."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import msgspec
from cyclopts import App, Parameter
from rich.console import Console

from lmx_kernel.memory.ledger import GIB

ConfigPath = Annotated[Path | None, Parameter(name="--config", help="As for `lmx serve`.")]
AsJson = Annotated[bool, Parameter(name="--json", negative="", help="Print the answer as JSON.")]
Flag = Annotated[bool, Parameter(negative="")]

console = Console(highlight=False)


def command(function: Callable[..., None]) -> App:
    """Return ``function`` as a command that is called as it is."""
    app = App(name=function.__name__, version_flags=())
    app.default(function)
    return app


def given(**fields: Any) -> dict[str, Any]:
    """Return the fields that are not None: the others are left to the daemon."""
    return {name: value for name, value in fields.items() if value is not None}


def print_json(value: Any) -> None:
    """Print one line of JSON, for programs."""
    sys.stdout.write(msgspec.json.encode(value).decode() + "\n")
    sys.stdout.flush()


def gib(size_bytes: float) -> str:
    """Return a size for people."""
    return f"{size_bytes / GIB:.2f} GiB"


def seconds(value_s: float) -> str:
    """Return a time for people."""
    minutes, rest = divmod(round(value_s), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
