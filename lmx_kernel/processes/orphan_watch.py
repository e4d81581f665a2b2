"""A small process that ends a child whose parent is gone, on systems that do not do so themselves.

It holds the read end of a pipe whose write end only the parent has. At the end of file the parent
is gone, and it kills the child's whole session: no lock of the child's interpreter is needed for
that, and the child may be stopped.
"""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from contextlib import suppress

import structlog

from lmx_kernel.processes import lifeline
from lmx_kernel.processes.environment import child_environment

SCRIPT = """
import os, sys
if not os.read(0, 1):
    os.killpg(int(sys.argv[1]), 9)
"""
log = structlog.get_logger(__name__)


class OrphanWatch:
    """The parent's side of the process."""

    def __init__(self, process: Process) -> None:
        self._process = process

    @classmethod
    async def start(cls, group: int) -> OrphanWatch | None:
        """Watch over a process group from now on; None where the system does so itself, or where
        it refuses another process. A child without a watch still ends by its lifeline.

        :param group: the id of the group, which is its leader's, a child of this process.
        """
        if lifeline.system_ends_orphans():
            return None
        try:
            return cls(
                await asyncio.create_subprocess_exec(
                    *(sys.executable, "-I", "-S", "-c", SCRIPT, str(group)),
                    stdin=PIPE,
                    stdout=DEVNULL,
                    stderr=DEVNULL,
                    env=child_environment(),
                    start_new_session=True,  # what is sent to the parent's group is not for it
                )
            )
        except OSError as error:
            log.warning("orphan_watch_failed", pid=group, reason=str(error))
            return None

    async def end(self) -> None:
        """End the watch; the process is reaped on return."""
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.write(b"\n")
        self._process.stdin.close()
        await self._process.wait()
