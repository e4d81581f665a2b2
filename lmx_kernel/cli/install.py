"""Installing plugins into the environment that LMX runs in."""

from __future__ import annotations

import subprocess

from attrs import frozen

from lmx_kernel.hookspecs import GROUP
from lmx_kernel.plugins.entry_points import entry_points
from lmx_kernel.processes.child import module_command


@frozen(order=True)
class Registration:
    """One entry point of an installed plugin.

    :ivar group: ``lmx`` for the daemon itself; the others are looked up when a model is loaded.
    """

    group: str
    name: str
    distribution: str
    version: str


class InstallError(Exception):
    """pip could not do it; it has said why."""


def registrations() -> set[Registration]:
    """Return everything that installed packages register with LMX, as it is on disk now."""
    return {
        Registration(entry.group, entry.name, entry.dist.name, entry.dist.version)
        for entry in (*entry_points(GROUP), *entry_points(f"{GROUP}."))
        if entry.dist is not None
    }


def install(requirements: list[str]) -> list[Registration]:
    """Install with this interpreter's pip and return what is registered that was not before.

    :param requirements: as pip takes them: names, files, folders, options.
    :raises InstallError: pip failed.
    """
    before = registrations()
    pip = [*module_command("pip"), "--disable-pip-version-check", "install", *requirements]
    if subprocess.run(pip, check=False).returncode != 0:  # noqa: S603 - what the user asked for
        raise InstallError(f"pip could not install {' '.join(requirements)}")
    return sorted(registrations() - before)
