"""Linux: a unit of the user's own systemd."""

from __future__ import annotations

import os
from pathlib import Path

from lmx_service.supervisor import Launch, ask, tell, write

UNIT = "lmx.service"
SYSTEMCTL = ("systemctl", "--user")
# The colon keeps systemd from putting variables into the command. Failures are retried for ever;
# the daemon itself makes the pauses grow (docs/service.md). The kernel ends a worker before the
# daemon when memory runs out, since a worker adds 500 to the score that it inherits; 100 is the
# least that a user's systemd may give.
TEMPLATE = """\
[Unit]
Description=LMX, a private LLM inference server
StartLimitIntervalSec=0

[Service]
Type=notify
ExecStart=:{command}
Environment={home}
WorkingDirectory=-{folder}
WatchdogSec=30
Restart=on-failure
RestartSec=10
RestartPreventExitStatus=78
TimeoutStartSec=300
TimeoutStopSec={stop_s}
KillMode=mixed
OOMPolicy=continue
OOMScoreAdjust=100
LimitNOFILE=65536
UMask=0077
NoNewPrivileges=yes
RestrictSUIDSGID=yes
LockPersonality=yes
RestrictRealtime=yes

[Install]
WantedBy=default.target
"""


class Systemd:
    """Runs the service while its user is logged in, or always if the user may linger."""

    by_hand = f"systemctl --user daemon-reload && systemctl --user enable --now {UNIT}"
    advice = "It ends with your last session unless you run `loginctl enable-linger`."
    variable_advice = f"add `Environment=NAME=value` with `systemctl --user edit {UNIT}`"

    def __init__(self) -> None:
        configs = Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser()
        self.file = configs / "systemd" / "user" / UNIT

    def installed_file(self) -> Path | None:
        """Return the unit's file if there is one."""
        return self.file if self.file.exists() else None

    def render(self, launch: Launch) -> str:
        """Return the unit."""
        return TEMPLATE.format(
            command=" ".join(map(_quote, launch.command)),
            home=_quote(f"LMX_HOME={launch.home}"),
            folder=str(launch.home).replace("%", "%%"),
            stop_s=launch.stop_s,
        )

    def install(self, launch: Launch) -> str:
        """Write the unit, enable it and start it."""
        write(self.file, self.render(launch))
        return tell(
            (*SYSTEMCTL, "daemon-reload"),
            (*SYSTEMCTL, "enable", UNIT),
            (*SYSTEMCTL, "restart", UNIT),
        )

    def uninstall(self) -> str:
        """Stop and disable the unit, and remove it."""
        problem = tell((*SYSTEMCTL, "disable", "--now", UNIT))
        self.file.unlink(missing_ok=True)
        return problem or tell((*SYSTEMCTL, "daemon-reload"))

    def state(self) -> str:
        """Return ``running``, or such as ``inactive`` and ``failed``."""
        is_active, said = ask(*SYSTEMCTL, "is-active", UNIT)
        return "running" if is_active else said


def _quote(word: str) -> str:
    """Return a word as systemd takes it, with its escapes and without its specifiers."""
    word = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("\n", "\\n")
    return f'"{word}"'
