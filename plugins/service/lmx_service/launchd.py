"""macOS: an agent of the user's own launchd."""

from __future__ import annotations

import os
import plistlib
import re
import time
from pathlib import Path
from shlex import quote

from lmx_service.supervisor import Launch, ask, tell, write

LABEL = "local.lmx.serve"
OLD_LABEL = "lmx.serve"  # of earlier versions; install and uninstall remove it
THROTTLE_S = 10
FILES = 10_240  # more is refused by macOS: OPEN_MAX
POLL_S = 0.5
BUSY = re.compile(r"\b(5: Input/output error|37: Operation already in progress)")
BUSY_ATTEMPTS = 10


class Launchd:
    """Runs the service while its user is logged in."""

    advice = "It runs while you are logged in at the screen; automatic login makes that always."

    def __init__(self) -> None:
        self._agents = Path("~/Library/LaunchAgents").expanduser()
        self.file = self._agents / f"{LABEL}.plist"
        self._domain = f"gui/{os.getuid()}"
        self.by_hand = f"launchctl bootstrap {self._domain} {quote(str(self.file))}"
        self.variable_advice = f"add it to EnvironmentVariables in {self.file}, and log in anew"

    @property
    def _old_file(self) -> Path:
        return self._agents / f"{OLD_LABEL}.plist"

    def installed_file(self) -> Path | None:
        """Return the property list, this version's or an earlier one's."""
        return next((file for file in (self.file, self._old_file) if file.exists()), None)

    def render(self, launch: Launch) -> str:
        """Return the property list."""
        output = str(launch.home / "logs" / "service.log")
        files = {"NumberOfFiles": FILES}
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
            "SoftResourceLimits": files,
            "HardResourceLimits": files,
            "Umask": 0o077,
            # What is not in the log file, which rotates: see --supervised.
            "StandardOutPath": output,
            "StandardErrorPath": output,
        }
        return plistlib.dumps(entries, sort_keys=False).decode()

    def install(self, launch: Launch) -> str:
        """Write the property list and load it."""
        (launch.home / "logs").mkdir(mode=0o700, parents=True, exist_ok=True)
        for label in (OLD_LABEL, LABEL):
            ask("launchctl", "bootout", self._target(label))  # fails where none is loaded
            self._await_end(label, launch.stop_s)
        self._old_file.unlink(missing_ok=True)
        write(self.file, self.render(launch))
        return tell(("launchctl", "enable", self._target(LABEL))) or self._bootstrap()

    def uninstall(self) -> str:
        """Unload the property list and remove it."""
        problems = [
            tell(("launchctl", "bootout", self._target(label)))
            for label, file in ((LABEL, self.file), (OLD_LABEL, self._old_file))
            if file.exists()
        ]
        for file in (self.file, self._old_file):
            file.unlink(missing_ok=True)
        return "; ".join(filter(None, problems))

    def state(self) -> str:
        """Return ``running``, or such as ``not running`` and ``spawn scheduled``."""
        label = LABEL if self.file.exists() else OLD_LABEL
        _, said = ask("launchctl", "print", self._target(label))
        state = re.search(r"^\s*state = (.+)$", said, re.MULTILINE)
        return state[1] if state else said

    def _target(self, label: str) -> str:
        return f"{self._domain}/{label}"

    def _await_end(self, label: str, limit_s: float) -> None:
        """Wait until a job is gone: ``bootout`` may return while the daemon still drains."""
        deadline = time.monotonic() + limit_s
        while ask("launchctl", "print", self._target(label))[0] and time.monotonic() < deadline:
            time.sleep(POLL_S)

    def _bootstrap(self) -> str:
        """Load the property list; a job that is not quite gone yet makes launchd refuse it."""
        problem = ""
        for _ in range(BUSY_ATTEMPTS):
            problem = tell(("launchctl", "bootstrap", self._domain, str(self.file)))
            if not BUSY.search(problem):
                break
            time.sleep(POLL_S)
        return problem
