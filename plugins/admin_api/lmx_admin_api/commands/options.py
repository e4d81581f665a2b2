"""What all commands have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from cyclopts import App, Parameter

Flag = Annotated[bool, Parameter(negative="")]


def command(function: Callable[..., None]) -> App:
    """Return ``function`` as a command that is called as it is."""
    app = App(name=function.__name__, version_flags=())
    app.default(function)
    return app


def given(**fields: Any) -> dict[str, Any]:
    """Return the fields that are not None: the others are left to the daemon."""
    return {name: value for name, value in fields.items() if value is not None}


def seconds(value_s: float) -> str:
    """Return a time for people."""
    minutes, rest = divmod(round(value_s), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
