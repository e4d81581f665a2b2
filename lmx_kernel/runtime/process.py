"""A worker process as the kernel sees it: the frames it sends and is sent, and its end."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable, Mapping
from typing import Any

import structlog

from lmx_kernel.processes.child import ChildProcess, describe_exit, module_command
from lmx_kernel.runtime.silence import Silence
from lmx_kernel.worker.messages import (
    HEADER_BYTES,
    Beat,
    End,
    Message,
    Ping,
    decode,
    encode,
    length_of,
)

log = structlog.get_logger(__name__)

CLOSE_TIMEOUT_S = 3.0
LATER_S = 0.5
DRAIN_S = 1.0


class WorkerProcess:
    """One worker, with a socket in place of its standard input. Closing the socket ends it.

    :ivar frames: how many messages came, beats not counted.
    :ivar beats: how many beats came.
    :ivar pulse: what the last beat said.
    :ivar exited: done when the process is reaped and its last frames are read, with the reason in
        words.
    """

    def __init__(
        self,
        child: ChildProcess,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        on_message: Callable[[Message], None],
    ) -> None:
        self.frames = self.beats = 0
        self.pulse: int | None = None
        self.exited: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._child = child
        self._writer = writer
        self._on_message = on_message
        self._unsent = b""
        self._flush_soon: asyncio.Handle | None = None
        self._flush_later: asyncio.Handle | None = None
        self._watcher = asyncio.ensure_future(self._watch(reader))

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
            reader, writer = await asyncio.open_unix_connection(sock=ours)
        except BaseException:
            ours.close()  # a child that was started ends with it
            raise
        return cls(child, reader, writer, on_message)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._child.pid

    def send(self, message: Message, *, later: bool = False) -> None:
        """Send a message; silently dropped if the worker is gone already. Messages of one turn of
        the event loop go together: each write wakes the worker, which costs more than the message.

        :param later: nobody waits for what it does, so it goes with the next message, or after half
            a second.
        """
        self._unsent += encode(message)
        loop = asyncio.get_running_loop()
        if later:
            self._flush_later = self._flush_later or loop.call_later(LATER_S, self._flush)
        elif self._flush_soon is None:
            self._flush_soon = loop.call_soon(self._flush)

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
        self._writer.close()
        await self._child.end(CLOSE_TIMEOUT_S)
        await asyncio.wait({self.exited})

    async def _watch(self, reader: asyncio.StreamReader) -> None:
        frames = asyncio.ensure_future(self._read_frames(reader))
        reason = "ended in an unknown way"
        try:
            status = await self._child.exited
            reason = f"{describe_exit(status)} {self._child.stderr_tail}".strip()
            await asyncio.wait({frames}, timeout=DRAIN_S)
        except Exception:
            log.exception("worker_end_unknown", pid=self.pid)
        finally:  # whoever waits for the end must hear of it, whatever went wrong here
            frames.cancel()
            self._writer.close()
            self.exited.set_result(reason)

    def _flush(self) -> None:
        if self._flush_later is not None:
            self._flush_later.cancel()
        self._flush_soon = self._flush_later = None
        if not self._writer.is_closing():
            self._writer.write(self._unsent)
        self._unsent = b""

    def _take(self, message: Message) -> None:
        if isinstance(message, Beat):
            self.beats, self.pulse = self.beats + 1, message.pulse
        else:
            self.frames += 1
            self._on_message(message)

    async def _read_frames(self, reader: asyncio.StreamReader) -> None:
        try:
            while True:
                header = await reader.readexactly(HEADER_BYTES)
                payload = await reader.readexactly(length_of(header))
                self._take(decode(payload))
                # Whoever waits for this frame goes first; unread frames slow the worker down.
                await asyncio.sleep(0)
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        except Exception:
            log.exception("worker_frame_failed", pid=self.pid)
        finally:  # without its channel, or with a kernel that cannot read it, it is of no use
            self.kill()
