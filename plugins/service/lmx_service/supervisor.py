"""What starts LMX and keeps it running: the words that its two kinds share."""

from __future__ import annotations

import math
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Protocol

from attrs import frozen

STOP_S = 15  # for last words and workers, after the drain


@frozen(kw_only=True)
class Launch:
    """What is to be started.

    :ivar command: the program and its arguments.
    :ivar home: LMX's own folder.
    :ivar stop_s: how long an orderly stop may take.
    """

    command: tuple[str, ...]
    home: Path
    stop_s: int


class Supervisor(Protocol):
    """A part of the system that runs services.

    :ivar file: where it looks for the description of ours.
    :ivar by_hand: the command that makes it use the file.
    :ivar advice: what else the user may want to know.
    :ivar variable_advice: how the service gets a variable of the environment.
    """

    file: Path
    by_hand: str
    advice: str
    variable_advice: str

    def installed_file(self) -> Path | None:
        """Return the file if it is there, or one that an earlier version wrote."""

    def render(self, launch: Launch) -> str:
        """Return what the file says."""

    def install(self, launch: Launch) -> str:
        """Write the file and start the service, anew if it runs.

        :return: why it was not started, "" if it was.
        :raises OSError: the file cannot be written.
        """

    def uninstall(self) -> str:
        """Stop the service and remove the file.

        :return: why it may still run, "" if it does not.
        :raises OSError: the file cannot be removed.
        """

    def state(self) -> str:
        """Return ``running``, or else how the service is in the supervisor's words."""


def plan_launch(home: Path, config: Path | None, drain_s: float) -> Launch:
    """Return how to serve with this interpreter, from whatever folder."""
    chosen = () if config is None else ("--config", str(config.absolute()))
    return Launch(
        command=(sys.executable, "-P", "-m", "lmx_kernel", "serve", *chosen),
        home=home.absolute(),
        stop_s=math.ceil(drain_s) + STOP_S,
    )


def write(file: Path, text: str) -> None:
    """Write a file, and the folders on the way to it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")


def ask(*command: str) -> tuple[bool, str]:
    """Run a tool; return whether it could do it, and what it said."""
    if shutil.which(command[0]) is None:
        return False, f"there is no {command[0]} here"
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode == 0:
        return True, done.stdout.strip()
    said = done.stderr.strip() or done.stdout.strip() or f"exit status {done.returncode}"
    return False, said


def tell(*commands: tuple[str, ...]) -> str:
    """Run tools until one fails; return what that one said, "" if none did."""
    for command in commands:
        is_done, said = ask(*command)
        if not is_done:
            return said
    return ""
