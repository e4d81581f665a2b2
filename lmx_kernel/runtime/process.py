"""A worker process as the kernel sees it: the frames it sends and is sent, and its end."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable, Mapping
from typing import Any

import structlog

from lmx_kernel.processes.child import ChildProcess, describe_exit, module_command
from lmx_kernel.runtime.channel import Channel
from lmx_kernel.runtime.silence import Silence
from lmx_kernel.worker.messages import Beat, End, Message, Ping

log = structlog.get_logger(__name__)

CLOSE_TIMEOUT_S = 3.0
DRAIN_S = 1.0


class WorkerProcess:
    """One worker, with a socket in place of its standard input. Closing the socket ends it.

    :ivar frames: how many messages came, beats not counted.
    :ivar beats: how many beats came.
    :ivar pulse: what the last beat said.
    :ivar exited: done when the process is reaped and its last frames are read, with the reason in
        words.
    """

    def __init__(self, child: ChildProcess, on_message: Callable[[Message], None]) -> None:
        self.frames = self.beats = 0
        self.pulse: int | None = None
        self.exited: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._child = child
        self._channel = Channel(self._take)
        self._channel.ended.add_done_callback(self._give_up)
        self._on_message = on_message
        self._watcher = asyncio.ensure_future(self._watch())

    @classmethod
    async def start(
        cls, env: Mapping[str, str], on_message: Callable[[Message], None]
    ) -> WorkerProcess:
        """Start a worker; ``on_message`` is called for each of its messages."""
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                command = module_command("lmx_kernel.worker")
                child = await ChildProcess.start(*command, stdin=theirs.fileno(), env=env)
            process = cls(child, on_message)
            loop = asyncio.get_running_loop()
            await loop.create_unix_connection(lambda: process._channel, sock=ours)
        except BaseException:
            ours.close()  # a child that was started ends with it
            raise
        return process

    @property
    def pid(self) -> int:
        """The process id."""
        return self._child.pid

    def send(self, message: Message, *, later: bool = False) -> None:
        """Send a message; see :meth:`Channel.send`.

        :param later: nobody waits for what it does.
        """
        self._channel.send(message, later=later)

    async def watch(self, until: set[asyncio.Future[Any]], silence: Silence) -> str:
        """Wait until one of ``until`` is done, the process has exited, or it is to be given up.

        :returns: why it is to be given up; empty if it is not.
        """
        waits = {*until, self.exited}
        while True:
            done, _ = await asyncio.wait(
                waits, timeout=silence.look_s, return_when=asyncio.FIRST_COMPLETED
            )
            if done:
                return ""
            if reason := silence.look(self):
                return reason
            if silence.is_long:
                self.send(Ping())

    def kill(self) -> None:
        """End the process at once, whatever it does."""
        self._child.send_signal(signal.SIGKILL)

    async def finish(self) -> None:
        """Let the worker write what is to outlive it, and end; it has a moment for that."""
        self.send(End())
        await asyncio.wait({self.exited}, timeout=CLOSE_TIMEOUT_S)

    async def close(self) -> None:
        """Let the worker end by itself, or else kill it. Its memory is free on return."""
        self._channel.close()
        await self._child.end(CLOSE_TIMEOUT_S)
        await asyncio.wait({self.exited})

    async def _watch(self) -> None:
        reason = "ended in an unknown way"
        try:
            status = await self._child.exited
            reason = f"{describe_exit(status)} {self._child.stderr_tail}".strip()
            await asyncio.wait({self._channel.ended}, timeout=DRAIN_S)
        except Exception:
            log.exception("worker_end_unknown", pid=self.pid)
        finally:  # whoever waits for the end must hear of it, whatever went wrong here
            self._channel.close()
            self.exited.set_result(reason)

    def _take(self, message: Message) -> None:
        if isinstance(message, Beat):
            self.beats, self.pulse = self.beats + 1, message.pulse
        else:
            self.frames += 1
            self._on_message(message)

    def _give_up(self, ended: asyncio.Future[Exception | None]) -> None:
        """End a worker without its channel, or with a kernel that cannot read it: of no use."""
        if error := ended.result():
            log.error("worker_frame_failed", pid=self.pid, exc_info=error)
        self.kill()
