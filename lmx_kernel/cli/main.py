"""The ``lmx`` command."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import NoReturn

from lmx_kernel.cli import plain_serve
from lmx_kernel.config import ConfigError
from lmx_kernel.daemon.exit_status import ExitStatus
from lmx_kernel.errors import LmxError
from lmx_kernel.plugins.settings import RequiredPluginError

GC_OBJECTS = 100_000
"""How many new objects a command makes before garbage is looked for: nearly all that it makes are
what it imports, and looking through that takes a tenth of its time.
"""


def main() -> None:
    """Run the ``lmx`` command."""
    run(partial(_command, sys.argv[1:]))


def run(make: Callable[[], Callable[[], object]]) -> None:
    """Run a command line; what a user can do something about is a line and an exit status.

    :param make: returns the command line.
    """
    try:
        make()()
    except (ConfigError, RequiredPluginError) as error:
        _fail(str(error), ExitStatus.CONFIG)
    except LmxError as error:
        _fail(error.message, 1)
    except OSError as error:  # a full disk, say, or a folder of somebody else
        _fail(f"{error.filename}: {error.strerror}" if error.filename else str(error), 1)


def _command(arguments: Sequence[str]) -> Callable[[], object]:
    if (options := plain_serve.read(arguments)) is not None:
        return partial(plain_serve.serve, *options)
    from lmx_kernel.cli.command_line import command_line  # noqa: PLC0415 - no part of the daemon

    if "serve" not in arguments:
        gc.set_threshold(GC_OBJECTS)
    return command_line(arguments)


def _fail(message: str, status: int) -> NoReturn:
    from lmx_kernel.cli.terminal import print_error  # noqa: PLC0415 - no part of the daemon

    print_error(message)
    sys.exit(status)
