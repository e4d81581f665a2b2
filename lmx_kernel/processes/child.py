"""Child processes as their parent sees them: start, standard error, exit, and a certain end."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Mapping
from contextlib import suppress

from lmx_kernel.processes.environment import child_environment
from lmx_kernel.processes.orphan_watch import OrphanWatch

STDERR_BYTES = 2000
UNKNOWN_STATUS = 255
DRAIN_S = 1.0
"""How long standard error is read after the exit: a grandchild may keep it open."""


def module_command(module: str, *arguments: str) -> tuple[str, ...]:
    """Return the command that runs a Python module in an interpreter like this one. It imports
    nothing from the current folder, which may hold anybody's files.
    """
    return (sys.executable, "-P", "-m", module, *arguments)


def describe_exit(status: int) -> str:
    """Return in words how a process ended.

    :param status: its exit status, or the negative number of the signal that ended it.
    """
    if status >= 0:
        return f"exited with status {status}"
    try:
        return f"killed by {signal.Signals(-status).name}"
    except ValueError:  # most real-time signals have no name
        return f"killed by signal {-status}"


class ChildProcess:
    """A Python module that runs in a child process and in a session of its own.

    It is started by exec: an exec'ed interpreter sees packages that were installed after its parent
    started, which a forked or spawned one does not. See :mod:`lmx_kernel.processes.lifeline` for
    what the child does to end with its parent.

    :ivar exited: done when the process is reaped and its standard error is read, with the exit
        status as in :func:`describe_exit`. Wait for it with :func:`asyncio.wait`, which does not
        cancel it.
    """

    def __init__(self, process: Process) -> None:
        self.exited: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._process = process
        self._stderr = b""
        self._orphan_watch = asyncio.ensure_future(OrphanWatch.start(process.pid))
        self._watcher = asyncio.ensure_future(self._watch())

    @classmethod
    async def start(
        cls,
        *command: str,
        stdin: int = PIPE,
        stdout: int = DEVNULL,
        env: Mapping[str, str] | None = None,
        line_bytes: int = 2**16,
    ) -> ChildProcess:
        """Start a child. It ends with this process from the return on, whatever it does.

        :param stdin: a file descriptor, or ``PIPE``; same for ``stdout``.
        :param env: variables to add to :func:`child_environment`.
        :param line_bytes: the longest line that ``stdout`` can be read by.
        :raises OSError: the system refuses.
        """
        child = cls(
            await asyncio.create_subprocess_exec(
                *command,
                stdin=stdin,
                stdout=stdout,
                stderr=PIPE,
                env=child_environment(env),
                start_new_session=True,
                limit=line_bytes,
            )
        )
        try:
            await asyncio.wait({child._orphan_watch})
        except asyncio.CancelledError:
            await child.end(0)  # nobody else knows of it
            raise
        return child

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def stdin(self) -> asyncio.StreamWriter:
        """Standard input, where it is a pipe."""
        assert self._process.stdin is not None
        return self._process.stdin

    @property
    def stdout(self) -> asyncio.StreamReader:
        """Standard output, where it is a pipe."""
        assert self._process.stdout is not None
        return self._process.stdout

    @property
    def stderr_tail(self) -> str:
        """The end of what the child wrote to standard error."""
        return self._stderr.decode(errors="replace").strip()

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to the child and to all that it started in its session."""
        # Not by the process object: its own kill() may reap the child, and the status is lost then.
        with suppress(ProcessLookupError, PermissionError):  # macOS refuses where all are dead
            os.killpg(self.pid, number)

    async def end(self, grace_s: float) -> None:
        """Let the child end by itself within ``grace_s``, then kill whatever is left of its
        session. Kills at once if the caller is cancelled. The child's memory is free on return.
        """
        try:
            await asyncio.wait({self.exited}, timeout=grace_s)
        finally:
            self.send_signal(signal.SIGKILL)
            await asyncio.wait({self.exited})

    async def _watch(self) -> None:
        stderr = asyncio.ensure_future(self._read_stderr())
        status = UNKNOWN_STATUS
        try:
            status = await self._process.wait()
            await asyncio.wait({stderr}, timeout=DRAIN_S)
        finally:  # whoever waits for the exit must hear of it, whatever went wrong here
            stderr.cancel()
            try:
                await self._end_orphan_watch()
            finally:
                self.exited.set_result(status)

    async def _end_orphan_watch(self) -> None:
        watch = await self._orphan_watch
        if watch is not None:
            await watch.end()

    async def _read_stderr(self) -> None:
        assert self._process.stderr is not None
        while data := await self._process.stderr.read(STDERR_BYTES):
            self._stderr = (self._stderr + data)[-STDERR_BYTES:]
