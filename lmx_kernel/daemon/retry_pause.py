"""How long a daemon that cannot serve yet waits before it ends and its supervisor starts it again.

Supervisors pause for the same time after each failure (systemd before 254, launchd), so the part of
the pause that grows is spent here.
"""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

from lmx_kernel.config.private_file import write_private

FILE = Path("run", "retry_pause")
FIRST_S, LONGEST_S = 5.0, 120.0
FORGET_S = 600.0  # more than LONGEST_S and a supervisor's own pause and start


def next_pause_s(home: Path, now: float | None = None) -> float:
    """Return the pause after this failure: 0 for the first one, then 5 s, doubled up to 2 minutes.

    :param now: in seconds since the epoch; the present if left out.
    """
    file, now = home / FILE, time.time() if now is None else now
    pause_s = 0.0
    with suppress(OSError, ValueError):
        if abs(now - file.stat().st_mtime) < FORGET_S:
            pause_s = min(max(0.0, float(file.read_text())), LONGEST_S)  # 0 for NaN
    with suppress(OSError):
        write_private(file, str(max(FIRST_S, 2 * pause_s)).encode())
    return pause_s


def forget_failures(home: Path) -> None:
    """Begin with no pause after the next failure."""
    with suppress(OSError):
        (home / FILE).unlink(missing_ok=True)
