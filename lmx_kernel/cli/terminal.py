"""What commands have in common, the kernel's and those of plugins."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import msgspec
from cyclopts import App, Parameter
from rich.console import Console
from rich.text import Text

ConfigPath = Annotated[
    Path | None, Parameter(name="--config", help="Config file; default: config.toml in LMX_HOME.")
]
AsJson = Annotated[bool, Parameter(name="--json", negative="", help="Print JSON, for programs.")]
Flag = Annotated[bool, Parameter(negative="")]

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class PlainConsole(Console):
    """A console that shows texts as they are: names of files and of models may hold anything. No
    markup is read in them, and control characters, which terminals obey, are replaced.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(highlight=False, markup=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Return ``text`` without control characters."""
        return super().render_str(CONTROL.sub("\ufffd", text), **options)


console = PlainConsole()


def command(function: Callable[..., None], name: str | None = None) -> App:
    """Return ``function`` as a command.

    :param name: what it is called; None is the function's own name.
    """
    app = App(name=name or function.__name__, version_flags=())
    app.default(function)
    return app


def given(**fields: Any) -> dict[str, Any]:
    """Return the fields that are not None: the others are left to the daemon."""
    return {name: value for name, value in fields.items() if value is not None}


def print_json(value: Any) -> None:
    """Print one line of JSON, for programs."""
    sys.stdout.write(msgspec.json.encode(value, enc_hook=str).decode() + "\n")
    sys.stdout.flush()


def print_error(message: str) -> None:
    """Print a line to standard error, without control characters."""
    print(CONTROL.sub("\ufffd", message), file=sys.stderr)  # noqa: T201 - this is the command line


def format_seconds(value_s: float) -> str:
    """Return a time such as ``1 h 5 min`` or ``1 min 30 s``."""
    minutes, rest = divmod(round(value_s), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
