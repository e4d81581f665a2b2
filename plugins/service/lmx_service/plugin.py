"""What this distribution adds to LMX."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from lmx_kernel.hookspecs import hookimpl

if TYPE_CHECKING:
    from cyclopts import App


@hookimpl
def lmx_commands() -> Iterable[App]:
    """``lmx service``."""
    from lmx_service.commands import app  # noqa: PLC0415 - the daemon needs no commands

    return [app]
