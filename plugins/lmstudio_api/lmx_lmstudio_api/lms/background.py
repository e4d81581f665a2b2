"""A daemon that nobody watches: whoever starts it reads its output until it serves."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from lmx_kernel.daemon.start import run


def _close_output() -> None:
    """Write to the log's file alone from now on."""
    with Path(os.devnull).open("ab") as nothing:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
            os.dup2(nothing.fileno(), stream.fileno())


if __name__ == "__main__":
    sys.exit(run(on_ready=_close_output))
