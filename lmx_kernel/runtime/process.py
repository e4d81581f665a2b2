"""A worker process as the kernel sees it: start, frames, and the certainty that it is gone."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress

from lmx_kernel.worker.messages import HEADER_BYTES, Message, decode, encode, length_of

CLOSE_TIMEOUT_S = 3.0
STDERR_BYTES = 2000


class WorkerProcess:
    """One exec'ed worker. An exec'ed interpreter sees packages that were installed after the
    kernel started, which a forked or spawned one does not.

    :ivar frames: how many frames came, as proof of life.
    :ivar exited: done when the process is reaped, with the reason in words.
    """

    def __init__(self, process: Process, writer: asyncio.StreamWriter) -> None:
        self._process = process
        self._writer = writer
        self._stderr = b""
        self._tasks: list[asyncio.Task[None]] = []
        self.frames = 0
        self.exited: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    @classmethod
    async def start(
        cls, env: Mapping[str, str], on_message: Callable[[Message], None]
    ) -> WorkerProcess:
        """Start a worker; ``on_message`` is called for each of its messages."""
        ours, theirs = socket.socketpair()
        with theirs:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "lmx_kernel.worker"),
                stdin=theirs.fileno(),
                stdout=asyncio.subprocess.DEVNULL,
                stderr=PIPE,
                env={**os.environ, **env},
                start_new_session=True,
            )
        reader, writer = await asyncio.open_unix_connection(sock=ours)
        worker = cls(process, writer)
        worker._follow(reader, on_message)
        return worker

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def last_words(self) -> str:
        """The end of what the worker wrote to standard error."""
        return self._stderr.decode(errors="replace").strip()

    def send(self, message: Message) -> None:
        """Send a message; silently dropped if the worker is gone already."""
        if not self._writer.is_closing():
            self._writer.write(encode(message))

    def kill(self) -> None:
        """End the process at once, whatever it does."""
        if self._process.returncode is None:
            # The process object's own kill() may reap it first, and its exit status is lost then.
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    async def close(self) -> None:
        """Let the worker end by itself, or else kill it. Its memory is back on return."""
        self._writer.close()
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await asyncio.shield(self.exited)
        except TimeoutError:
            self.kill()
            await self.exited

    def _follow(self, reader: asyncio.StreamReader, on_message: Callable[[Message], None]) -> None:
        assert self._process.stderr is not None
        watchers: tuple[Awaitable[None], ...] = (
            self._read_frames(reader, on_message),
            self._read_stderr(self._process.stderr),
        )
        self._tasks = [asyncio.ensure_future(watcher) for watcher in watchers]
        self._tasks.append(asyncio.ensure_future(self._reap()))

    async def _read_frames(
        self, reader: asyncio.StreamReader, on_message: Callable[[Message], None]
    ) -> None:
        try:
            while True:
                header = await reader.readexactly(HEADER_BYTES)
                payload = await reader.readexactly(length_of(header))
                self.frames += 1
                on_message(decode(payload))
                # Whoever waits for this frame goes first; unread frames slow the worker down.
                await asyncio.sleep(0)
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:  # without its channel, or with a kernel that cannot read it, it is of no use
            self.kill()

    async def _read_stderr(self, reader: asyncio.StreamReader) -> None:
        while said := await reader.read(STDERR_BYTES):
            self._stderr = (self._stderr + said)[-STDERR_BYTES:]

    async def _reap(self) -> None:
        code = await self._process.wait()
        await asyncio.wait(self._tasks[:2], timeout=1)
        self._writer.close()
        for task in self._tasks[:2]:
            task.cancel()
        self.exited.set_result(_describe_exit(code))


def _describe_exit(code: int) -> str:
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return f"exited with status {code}"
