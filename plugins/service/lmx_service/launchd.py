"""macOS: an agent of the user's own launchd."""

from __future__ import annotations

import os
import plistlib
import re
from pathlib import Path
from shlex import quote

from lmx_service.supervisor import Launch, ask, tell, write

LABEL = "lmx.serve"
THROTTLE_S = 10


class Launchd:
    """Runs the service while its user is logged in."""

    advice = "It runs while you are logged in at the screen; automatic login makes that always."

    def __init__(self) -> None:
        self.file = Path("~/Library/LaunchAgents").expanduser() / f"{LABEL}.plist"
        self._domain = f"gui/{os.getuid()}"
        self._target = f"{self._domain}/{LABEL}"
        self.by_hand = f"launchctl bootstrap {self._domain} {quote(str(self.file))}"

    def render(self, launch: Launch) -> str:
        """Return the property list."""
        output = str(launch.home / "logs" / "service.log")
        entries = {
            "Label": LABEL,
            # It knows success and failure alone, and starts every failure again.
            "ProgramArguments": [*launch.command, "--supervised"],
            "EnvironmentVariables": {"LMX_HOME": str(launch.home)},
            "WorkingDirectory": str(launch.home),
            "RunAtLoad": True,
            "KeepAlive": {"SuccessfulExit": False},
            "ThrottleInterval": THROTTLE_S,
            "ExitTimeOut": launch.stop_s,
            "ProcessType": "Interactive",  # any other is throttled
            "StandardOutPath": output,
            "StandardErrorPath": output,
        }
        return plistlib.dumps(entries, sort_keys=False).decode()

    def install(self, launch: Launch) -> str:
        """Write the property list and load it."""
        (launch.home / "logs").mkdir(mode=0o700, parents=True, exist_ok=True)
        write(self.file, self.render(launch))
        ask("launchctl", "bootout", self._target)  # fails where none is loaded
        return tell(
            ("launchctl", "enable", self._target),
            ("launchctl", "bootstrap", self._domain, str(self.file)),
        )

    def uninstall(self) -> str:
        """Unload the property list and remove it."""
        problem = tell(("launchctl", "bootout", self._target))
        self.file.unlink(missing_ok=True)
        return problem

    def state(self) -> str:
        """Return ``running``, or such as ``not running`` and ``spawn scheduled``."""
        _, said = ask("launchctl", "print", self._target)
        state = re.search(r"^\s*state = (.+)$", said, re.MULTILINE)
        return state[1] if state else said
