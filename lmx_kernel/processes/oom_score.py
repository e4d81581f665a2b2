"""Which process Linux ends first when memory runs out: a worker, which is replaced, and not the
daemon that replaces it.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

FILE = Path("/proc/self/oom_score_adj")
MORE, MOST = 500, 1000  # thousandths of the memory; proc_pid_oom_score_adj(5)


def raise_oom_score(file: Path = FILE) -> None:
    """Make this process a likelier victim than its parent; does nothing on other systems."""
    with suppress(OSError, ValueError):
        file.write_text(str(min(MOST, int(file.read_text()) + MORE)))
