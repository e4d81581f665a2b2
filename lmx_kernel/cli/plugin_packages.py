"""``lmx plugin install``, ``upgrade`` and ``uninstall``: pip, and then the running daemon."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from importlib.metadata import Distribution
from pathlib import Path
from typing import Annotated, Any, NoReturn

from cyclopts import App, Parameter

from lmx_kernel.cli.client import Client
from lmx_kernel.cli.plugins import app
from lmx_kernel.cli.terminal import command, console, print_error
from lmx_kernel.errors import LmxError, UnavailableError
from lmx_kernel.plugins.entry_points import entry_points
from lmx_kernel.plugins.registrations import (
    DIST,
    GROUP,
    Origin,
    Registration,
    package_of,
    registrations,
)
from lmx_kernel.plugins.wheel import NotPlainError, build_wheel

Requirements = Annotated[str, Parameter(allow_leading_hyphen=True, help="As pip takes them.")]
EDITABLE = ("-e", "--editable")
Names = Annotated[str, Parameter(help="Of plugins or packages, or what pip takes.")]


@app.command
def install(*requirements: Requirements) -> None:
    """Install plugins with pip; a running daemon uses them at once."""
    if not requirements:
        _fail("name a package, a file or a folder", 2)
    before = registrations()
    built = list(_built(requirements))
    _pip("install", *built)
    if anew := [one for one in built if one not in requirements]:
        _pip("install", "--quiet", "--force-reinstall", "--no-deps", *anew)
    _say_what_is_new(before, _daemon())


@app.command
def upgrade(*names: Names) -> None:
    """Install the newest version of plugins, and use it; those that are installed editable are
    imported anew.
    """
    if not names:
        _fail("name a plugin, a package, a file or a folder", 2)
    before, client, editable = registrations(), _daemon(), list[Distribution]()
    for name in names:
        package = package_of(name)
        origin = Origin.of(package) if package else Origin()
        if package and origin.is_editable:
            editable.append(package)
        elif origin.folder:
            _pip("install", "--force-reinstall", "--no-deps", *_built([origin.folder]))
        else:
            _pip("install", "--upgrade", package.name if package else name)
    changed = _say_what_is_new(before, client, quiet=bool(editable))
    for package in editable:
        _reload(package, client, without=changed)


@app.command
def uninstall(name: str) -> None:
    """Uninstall a plugin's package with pip; a running daemon stops using it at once."""
    package = package_of(name)
    if package is None:
        _fail(f"no plugin and no package of one is called {name}", 1)
    names = [entry.name for entry in _plugins_of(package)]
    distribution, version = package.name, package.version  # which are read from its files
    client = _daemon()
    _pip("uninstall", "-y", distribution)
    console.print(f"{distribution} {version} is uninstalled.")
    if client is not None:
        _rescan(client)
        for one in client.get("/admin/plugins")["plugins"]:
            if one["name"] in names:
                console.print(f"{one['name']}: {one['reason']}")


def lmx_commands() -> Iterable[App]:
    """``lmx install``, the short form."""
    return [command(install, "install")]


def _say_what_is_new(
    before: set[Registration], client: Client | None, *, quiet: bool = False
) -> set[str]:
    """Let the daemon use what is registered that was not before, and say when each counts.

    :returns: the names of the plugins.
    """
    added = sorted(registrations() - before)
    names = {one.name for one in added if one.group == GROUP}
    states = _states(client) if names and client is not None else {}
    for one in added:
        when = "at the next load"
        if one.group == GROUP:
            when = states.get(one.name, "at the next start")
        console.print(f"{one.distribution} {one.version}: {one.group} {one.name}, {when}")
    if not added and not quiet:
        console.print("Nothing new was registered.")
    return names


def _states(client: Client) -> dict[str, str]:
    """Return what became of each plugin after a rescan."""
    _rescan(client)
    return {
        one["name"]: "in use now"
        if one["state"] == "active"
        else f"{one['state']}: {one['reason']}"
        for one in client.get("/admin/plugins")["plugins"]
    }


def _reload(package: Distribution, client: Client | None, without: set[str]) -> None:
    for entry in _plugins_of(package):
        if client is None or entry.name in without:
            continue
        try:
            plugin = client.post(f"/admin/plugins/{entry.name}/reload")
        except LmxError as error:
            _fail(error.message, 1)
        console.print(f"{entry.name} {plugin['version']} is imported anew and {plugin['state']}.")
    if client is None:
        console.print(f"{package.name} is installed editable; the next start uses it as it is.")


def _plugins_of(package: Distribution) -> Sequence[Any]:
    return [
        entry for entry in entry_points(GROUP) if entry.dist and entry.dist.name == package.name
    ]


def _daemon() -> Client | None:
    """Return a client of the daemon; None if none runs, or none that can be asked."""
    client = Client.find()
    try:
        client.get("/admin/plugins")
    except UnavailableError:
        return None
    except LmxError as error:
        print_error(f"The daemon cannot be asked ({error.message}): restart it afterwards.")
        return None
    return client


def _rescan(client: Client) -> None:
    with suppress(LmxError):  # the listing says what became of each
        client.post("/admin/plugins/rescan")


def _built(requirements: Sequence[str]) -> Iterator[str]:
    """Yield ``requirements``, with the wheels of folders that LMX can build: pip would first
    download what builds them. They lie in the folder's ``dist``.
    """
    for before, one in zip(("", *requirements), requirements, strict=False):
        folder = Path(one)
        if before in EDITABLE or not (folder / "pyproject.toml").exists():
            yield one
            continue
        try:
            yield str(build_wheel(folder.absolute(), folder.absolute() / DIST))
        except (NotPlainError, OSError):
            yield one


def _pip(action: str, *arguments: str) -> None:
    from lmx_kernel.processes.child import module_command  # noqa: PLC0415 - takes long

    pip = [*module_command("pip"), "--disable-pip-version-check", action, *arguments]
    if subprocess.run(pip, check=False).returncode != 0:  # noqa: S603 - what the user asked for
        _fail(f"pip could not {action} {' '.join(arguments)}", 1)


def _fail(message: str, status: int) -> NoReturn:
    print_error(message)
    sys.exit(status)
