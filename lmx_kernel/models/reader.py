"""Headers of models are read in a child process: they are foreign data, and parsing them takes the
interpreter, time and memory that the daemon's clients would miss.

Run as ``python -m lmx_kernel.models.reader``. A request is a line of JSON, ``[backend, path]``; the
reply is its length in 8 bytes and MessagePack. One child reads many models, one after the other;
it ends when its standard input does, and its parent ends it when nothing was asked for a while.
"""

from __future__ import annotations

import importlib
import json
import os
import select
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
from attrs import define

from lmx_kernel.errors import ModelUnusableError
from lmx_kernel.memory.machine import process_bytes
from lmx_kernel.processes.child import describe_exit, module_command
from lmx_kernel.processes.environment import child_environment
from lmx_kernel.processes.limits import limit_cpu, limit_memory

READ_S = 120.0
"""For one model: a disk may have to start, or be far away."""

CPU_S = 30
"""For one model, of the processor: the largest real headers take two."""

MEMORY_BYTES = 2 << 30
REPLY_BYTES = 1 << 20
IDLE_S = 30.0
LOOK_S = 0.1
"""How often a child that reads is looked at."""

EXIT_S = 5.0
MOST_IDLE = 2


class ReaderError(Exception):
    """The child failed; that says nothing of the model if it happens once."""


class HeaderReader:
    """Reads headers in child processes, which are kept for the next model. May be called from any
    thread; nobody waits for another's model.
    """

    def __init__(self) -> None:
        self._idle: list[_Child] = []
        self._lock = threading.Lock()
        self._expiry: threading.Timer | None = None

    def read(self, backend: type, path: Path, header_type: type[Any]) -> Any:
        """Return what ``backend().read(path)`` returns in a child.

        :param header_type: an attrs class, or anything else that msgspec decodes.
        :raises ModelUnusableError: it raised that, or reading takes too much time or memory.
        :raises OSError: no child could be started.
        """
        try:
            return self._ask(backend, path, header_type)
        except ReaderError:  # of an earlier model, perhaps
            self.end_idle()
        try:
            return self._ask(backend, path, header_type)
        except ReaderError as error:
            raise ModelUnusableError(
                f"{path.name}: its headers could not be read: {error}"
            ) from error

    def _ask(self, backend: type, path: Path, header_type: type[Any]) -> Any:
        with self._lock:
            child = self._idle.pop() if self._idle else None
        child = child or _Child.start()
        try:
            reply = child.ask(f"{backend.__module__}:{backend.__qualname__}", path)
        except BaseException:
            child.end()
            raise
        with self._lock:
            self._idle.append(child)
            surplus = self._idle[:-MOST_IDLE]
            del self._idle[:-MOST_IDLE]
            self._expire_later()
        for one in surplus:
            one.end()
        return _decoded(reply, header_type)

    def end_idle(self) -> None:
        """End the children that have nothing to do."""
        with self._lock:
            idle, self._idle = self._idle, []
        for one in idle:
            one.end()

    def _expire_later(self) -> None:
        if self._expiry is not None:
            self._expiry.cancel()
        self._expiry = threading.Timer(IDLE_S, self.end_idle)
        self._expiry.daemon = True
        self._expiry.start()


@define
class _Child:
    """The parent's side of one child."""

    process: subprocess.Popen[bytes]

    @classmethod
    def start(cls) -> _Child:
        command = module_command("lmx_kernel.models.reader")
        return cls(
            subprocess.Popen(  # noqa: S603 - this interpreter, and a module of our own
                command,
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                env=child_environment(),
            )
        )

    def ask(self, backend: str, path: Path) -> bytes:
        """Return the reply.

        :raises ReaderError: the child ended, or was ended because it took too much.
        """
        assert self.process.stdin is not None
        deadline = time.monotonic() + READ_S
        try:
            self.process.stdin.write(json.dumps([backend, os.fspath(path)]).encode() + b"\n")
        except OSError as error:
            raise ReaderError(self._last_words()) from error
        length = int.from_bytes(self._take(8, deadline), "big")
        if length > REPLY_BYTES:
            raise ReaderError("they say too much")
        return self._take(length, deadline)

    def end(self) -> None:
        """End the child, and wait until it is gone."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            with suppress(OSError):
                pipe.close()  # type: ignore[union-attr]

    def _take(self, length: int, deadline: float) -> bytes:
        assert self.process.stdout is not None
        file, data = self.process.stdout.fileno(), b""
        poll = select.poll()  # select() takes no file above 1023
        poll.register(file, select.POLLIN)
        while len(data) < length:
            while not poll.poll(LOOK_S * 1000):
                self._check(deadline)
            some = os.read(file, length - len(data))
            if not some:
                raise ReaderError(self._last_words())
            data += some
        return data

    def _check(self, deadline: float) -> None:
        """Look whether the child takes too much; some systems limit no memory themselves."""
        if time.monotonic() > deadline:
            raise ReaderError("it took too long")
        if process_bytes(self.process.pid) > MEMORY_BYTES:
            raise ReaderError("it took too much memory")

    def _last_words(self) -> str:
        with suppress(subprocess.TimeoutExpired):  # it closed its output, so it is about to end
            self.process.wait(EXIT_S)
        self.process.kill()
        return f"the reader {describe_exit(self.process.wait())}"


def _decoded(reply: bytes, header_type: type[Any]) -> Any:
    problem, header = msgspec.msgpack.decode(reply, type=tuple[str | None, msgspec.Raw])
    if problem is not None:
        raise ModelUnusableError(problem)
    return msgspec.msgpack.decode(header, type=header_type, dec_hook=lambda kind, one: kind(one))


# --- the child's side ----------------------------------------------------------------------------


def main() -> None:
    """Answer requests until there are no more."""
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print is no reply
    limit_memory(MEMORY_BYTES)
    requests = os.fdopen(0, "rb", buffering=0)
    while line := requests.readline():
        limit_cpu(CPU_S)  # also where native code holds the interpreter
        reply = _reply(*json.loads(line))
        replies.write(len(reply).to_bytes(8, "big") + reply)
        replies.flush()


def _reply(backend: str, path: str) -> bytes:
    module, _, name = backend.partition(":")
    read: Callable[[Path], Any] = getattr(importlib.import_module(module), name)().read
    encode = msgspec.msgpack.Encoder(enc_hook=os.fspath).encode
    try:
        return encode((None, read(Path(path))))
    except ModelUnusableError as error:
        return encode((error.message, None))
    except UnicodeEncodeError:
        return encode((f"{Path(path).name}: a text in it is not Unicode", None))


if __name__ == "__main__":
    main()
