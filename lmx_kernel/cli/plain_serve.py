"""``lmx serve`` as supervisors call it. It is read without the library that reads all other command
lines, which the daemon would keep in memory.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from lmx_kernel.daemon.exit_status import ExitStatus

SUPERVISED = "--supervised"


def read(arguments: Sequence[str]) -> tuple[Path | None, bool] | None:
    """Return the arguments of :func:`serve`; None if there is more to read, such as ``--help``.

    :param arguments: of ``lmx``.
    """
    if not arguments or arguments[0] != "serve":
        return None
    match [word for word in arguments[1:] if word != SUPERVISED]:
        case []:
            config = None
        case ["--config", path] if not path.startswith("-"):
            config = Path(path)
        case _:
            return None
    return config, SUPERVISED in arguments


def serve(config: Path | None, is_supervised: bool) -> NoReturn:
    """Serve until told to stop, and end the process.

    :param is_supervised: a supervisor started this that knows only success and failure, and has no
        watchdog.
    """
    from lmx_kernel.daemon.start import run  # noqa: PLC0415 - the other commands need no server

    status = run(config, is_supervised=is_supervised)
    sys.exit(0 if is_supervised and status == ExitStatus.CONFIG else status)
