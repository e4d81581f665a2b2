"""The ``lmx`` command."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import Annotated, NoReturn

from cyclopts import App, Parameter
from rich.table import Table

from lmx_kernel import __version__
from lmx_kernel.cli.client import Client
from lmx_kernel.cli.install import InstallError, install, registrations
from lmx_kernel.cli.keys import app as key_app
from lmx_kernel.cli.terminal import AsJson, ConfigPath, console, gib, print_json
from lmx_kernel.config import ConfigError
from lmx_kernel.daemon.exit_status import ExitStatus
from lmx_kernel.errors import LmxError
from lmx_kernel.hookspecs import GROUP
from lmx_kernel.kernel.assembly import scan
from lmx_kernel.kernel.boot import boot
from lmx_kernel.plugins.manager import RequiredPluginError

Supervised = Annotated[
    bool,
    Parameter(
        negative="",
        help="For a supervisor that knows only success and failure, and has no watchdog (launchd): "
        "exit 0 if the config is wrong, and end when the event loop is stuck.",
    ),
]
app = App(name="lmx", help="A private LLM inference server that runs without a human.")
app.version = __version__
config_app = App(name="config", help="Look at the config.")
app.command(config_app)
app.command(key_app)


def main() -> None:
    """Run the command line, with the commands that plugins add."""
    try:
        if sys.argv[1:2] not in ([name] for name in app if not name.startswith("-")):
            with suppress(ConfigError, RequiredPluginError):
                for command in boot().plugins.commands():
                    app.command(command)
        app()
    except (ConfigError, RequiredPluginError) as error:
        _fail(str(error), ExitStatus.CONFIG)
    except LmxError as error:
        _fail(error.message, 1)


@app.command
def serve(config: ConfigPath = None, supervised: Supervised = False) -> None:
    """Serve until told to stop (SIGTERM or Ctrl-C)."""
    from lmx_kernel.daemon.start import run  # noqa: PLC0415 - the other commands need no server

    status = run(config, is_supervised=supervised)
    sys.exit(0 if supervised and status == ExitStatus.CONFIG else status)


@app.command
def ls(config: ConfigPath = None, as_json: AsJson = False) -> None:
    """List the models on disk."""
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
            gib(card.size_bytes),
            card.format,
            card.quantization or "-",
            str(card.context_length),
            card.backend,
            card.problem or "ok",
        )
    console.print(
        table if table.row_count else "No models found. `lmx doctor` says where I looked."
    )


@app.command
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
            gib(model["memory_bytes"]),
            str(model["pid"] or "-"),
        )
    console.print(table if table.row_count else "Nothing was asked for yet.")


@app.command
def plugins(config: ConfigPath = None, as_json: AsJson = False) -> None:
    """List the installed plugins, why one is not active, and what else packages register."""
    statuses = boot(config).plugins.statuses
    if as_json:
        print_json(statuses)
        return
    table = Table("plugin", "distribution", "version", "state", "hooks / reason", box=None)
    for status in statuses:
        detail = status.reason or ", ".join(status.hooks)
        table.add_row(status.name, status.distribution, status.version, status.state.value, detail)
    console.print(table if table.row_count else "No plugins are installed.")
    others = Table("group", "name", "distribution", "version", box=None)
    for one in sorted(one for one in registrations() if one.group != GROUP):
        others.add_row(one.group, one.name, one.distribution, one.version)
    if others.row_count:
        console.print(others)


@app.command(name="install")
def install_plugin(
    *requirements: Annotated[str, Parameter(allow_leading_hyphen=True, help="As pip takes them.")],
) -> None:
    """Install plugins with pip; a running daemon uses new architectures at the next load."""
    if not requirements:
        _fail("name a package, a file or a folder", 2)
    try:
        added = install(list(requirements))
    except InstallError as error:
        _fail(str(error), 1)
    for one in added:
        when = "at the next start" if one.group == GROUP else "at the next load"
        console.print(f"{one.distribution} {one.version}: {one.group} {one.name}, {when}")
    if not added:
        console.print("Nothing new was registered.")


@app.command
def doctor(config: ConfigPath = None) -> None:
    """Check the machine, the config, the plugins and the models; exit 1 if something is wrong."""
    from lmx_kernel.cli.doctor import run_diagnostics  # noqa: PLC0415 - the other commands need no examination

    booted = boot(config)
    findings = run_diagnostics(booted, scan(booted))
    for finding in findings:
        mark = "[green]ok[/green]  " if finding.is_ok else "[red]FAIL[/red]"
        console.print(f"{mark} {finding.subject}: {finding.text}", highlight=False)
    sys.exit(0 if all(finding.is_ok for finding in findings) else 1)


@config_app.command
def check(config: ConfigPath = None) -> None:
    """Check the config; exit 78 and say every problem if it is wrong."""
    boot(config)
    console.print("The config is fine.")


def _fail(message: str, status: int) -> NoReturn:
    print(message, file=sys.stderr)  # noqa: T201 - this is the command line
    sys.exit(status)
