"""Headers of models are read in a child process: they are foreign data, and parsing them takes the
interpreter, time and memory that the daemon's clients would miss.

Run as ``python -m lmx_kernel.models.reader``. A request is a line of JSON, ``[backend, path]``; the
reply is its length in 8 bytes and MessagePack. One child reads many models, one after the other;
it ends when its standard input does, or when nothing was asked for a while.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import select
import subprocess
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
from attrs import define, field

from lmx_kernel.errors import ModelUnusableError
from lmx_kernel.processes.child import describe_exit, module_command
from lmx_kernel.processes.environment import child_environment
from lmx_kernel.processes.limits import limit_memory

READ_S = 120.0
"""For one model: a disk may have to start, or be far away."""

CPU_S = 30
"""For one model, of the processor: the largest real headers take two."""

MEMORY_BYTES = 2 << 30
REPLY_BYTES = 1 << 20
IDLE_S = 30.0
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

    def read(self, backend: type, path: Path, header_type: type[Any]) -> Any:
        """Return what ``backend().read(path)`` returns in a child.

        :param header_type: an attrs class, or anything else that msgspec decodes.
        :raises ModelUnusableError: it raised that, or reading takes too much time or memory.
        :raises OSError: no child could be started.
        """
        try:
            return self._ask(backend, path, header_type)
        except ReaderError:  # of an earlier model, perhaps, or it just went for want of work
            self._take_all()
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
        for one in surplus:
            one.end()
        return _decoded(reply, header_type)

    def _take_all(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        for one in idle:
            one.end()


@define
class _Child:
    """The parent's side of one child."""

    process: subprocess.Popen[bytes]
    is_late: bool = field(default=False, init=False)

    @classmethod
    def start(cls) -> _Child:
        command = module_command("lmx_kernel.models.reader")
        return cls(
            subprocess.Popen(  # noqa: S603 - this interpreter, and a module of our own
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                env=child_environment(),
            )
        )

    def ask(self, backend: str, path: Path) -> bytes:
        """Return the reply.

        :raises ReaderError: the child ended, or was ended because it took too long.
        """
        timer = threading.Timer(READ_S, self._end_late)
        timer.daemon = True
        timer.start()
        try:
            return self._exchange(json.dumps([backend, os.fspath(path)]).encode() + b"\n")
        except OSError as error:
            raise ReaderError(self._last_words()) from error
        finally:
            timer.cancel()

    def end(self) -> None:
        """End the child, and wait until it is gone."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            with suppress(OSError):
                pipe.close()  # type: ignore[union-attr]

    def _exchange(self, request: bytes) -> bytes:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(request)
        self.process.stdin.flush()
        length = int.from_bytes(self._take(self.process.stdout, 8), "big")
        if length > REPLY_BYTES:
            raise ReaderError("they say too much")
        return self._take(self.process.stdout, length)

    def _take(self, file: BinaryIO | Any, length: int) -> bytes:
        data: bytes = file.read(length)
        if len(data) < length:
            raise ReaderError(self._last_words())
        return data

    def _end_late(self) -> None:
        self.is_late = True
        self.process.kill()

    def _last_words(self) -> str:
        with suppress(subprocess.TimeoutExpired):  # it closed its output, so it is about to end
            self.process.wait(EXIT_S)
        self.process.kill()
        status = self.process.wait()
        return "it took too long" if self.is_late else f"the reader {describe_exit(status)}"


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
    while select.select([requests], [], [], IDLE_S)[0]:
        line = requests.readline()
        if not line:
            break
        _limit_cpu()
        reply = _reply(*json.loads(line))
        replies.write(len(reply).to_bytes(8, "big") + reply)
        replies.flush()


def _limit_cpu() -> None:
    """End this process when it has computed for :data:`CPU_S` from now on."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    soft = int(usage.ru_utime + usage.ru_stime) + 1 + CPU_S
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CPU, (soft, resource.RLIM_INFINITY))


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
