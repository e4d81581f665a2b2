"""``lmx doctor``."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from cyclopts import App
from rich.text import Text

from lmx_kernel.cli.terminal import ConfigPath, command, console


def doctor(config: ConfigPath = None) -> None:
    """Check the machine, the config, the plugins, the models, and the daemon if one runs; exit 1 if
    something is wrong.
    """
    from lmx_kernel.cli.diagnostics import run_diagnostics  # noqa: PLC0415 - takes long
    from lmx_kernel.kernel.boot import boot  # noqa: PLC0415 - as above
    from lmx_kernel.kernel.scan import scan  # noqa: PLC0415 - as above

    booted = boot(config)
    findings = run_diagnostics(booted, scan(booted))
    for finding in findings:
        mark = Text("ok  ", "green") if finding.is_ok else Text("FAIL", "red")
        console.print(mark, f"{finding.subject}: {finding.text}")
    sys.exit(0 if all(finding.is_ok for finding in findings) else 1)


def lmx_commands() -> Iterable[App]:
    """``lmx doctor``."""
    return [command(doctor)]
