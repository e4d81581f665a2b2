"""Long work in a process of its own: it can be killed at any time, and what it imports never
enters the daemon.

Run as ``python -m lmx_kernel.jobs.child module:function``: the spec comes as a line of JSON on
standard input, which stays open as the child's life line; progress and the result go out as lines
of JSON on standard output.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import signal
import sys
import threading
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Awaitable, Iterable, Mapping
from contextlib import suppress
from typing import Any

import attrs

from lmx_kernel.errors import InternalError, LmxError, from_code
from lmx_kernel.interfaces import Report
from lmx_kernel.worker.oom_score import raise_oom_score

LINE_BYTES = 2**24
STOP_S = 3.0
TELL_S = 0.1


async def run_child(
    target: str,
    spec: Mapping[str, Any],
    report: Report,
    *,
    env: Mapping[str, str] | None = None,
    secrets: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Call a function in a child process and return its result. Cancelling kills the child.

    :param target: ``module:function``; the function takes the spec and a :class:`Report`, and
        returns a dict. Both dicts must survive JSON.
    :param env: environment variables to add.
    :param secrets: more of them, whose values are struck out of every message.
    :raises LmxError: the function raised it, or (:class:`InternalError`) failed in another way.
    """
    secrets = secrets or {}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "lmx_kernel.jobs.child", target),
        stdin=PIPE,
        stdout=PIPE,
        stderr=PIPE,
        env={**os.environ, **(env or {}), **secrets},
        start_new_session=True,
        limit=LINE_BYTES,
    )
    assert process.stdin
    assert process.stdout
    assert process.stderr
    last_words = asyncio.ensure_future(_last_line(process.stderr))
    try:
        process.stdin.write(json.dumps(spec).encode() + b"\n")
        outcome = await _follow(process.stdout, report)
        if outcome is None:
            code = await process.wait()
            raise InternalError(f"{target} {_describe(code, await last_words)}")
    except LmxError as error:
        raise _without(error, secrets.values()) from None
    finally:
        await _end(process, last_words)
    return outcome


# --- the parent's side ---------------------------------------------------------------------------


async def _follow(lines: asyncio.StreamReader, report: Report) -> dict[str, Any] | None:
    """Pass progress on until the child tells its result; None if it ends without one."""
    while line := await lines.readline():
        match json.loads(line):
            case {"progress": [done, total, note]}:
                report(done, total, note)
            case {"result": result}:
                return dict(result)
            case {"error": error}:
                raise _rebuilt(**error)
    return None


def _rebuilt(
    code: str, message: str, param: str | None, retry_after_s: int | None, retryable: bool
) -> LmxError:
    error = from_code(code, message, param)
    error.retry_after_s = retry_after_s
    error.retryable = retryable
    return error


def _without(error: LmxError, secrets: Iterable[str]) -> LmxError:
    for secret in filter(None, secrets):
        error.message = error.message.replace(secret, "***")
    error.args = (error.message,)
    return error


async def _last_line(lines: asyncio.StreamReader) -> str:
    last = ""
    while chunk := await lines.read(LINE_BYTES):
        last = (last + chunk.decode(errors="replace"))[-4096:]
    return last.rstrip().rpartition("\n")[2].strip()


def _describe(code: int, last_words: str) -> str:
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
    return f"{how}: {last_words}" if last_words else how


async def _end(process: Process, last_words: asyncio.Future[str]) -> None:
    """Make sure that the child is gone, and whatever it started in its session."""
    assert process.stdin
    assert process.stdout
    try:
        if process.returncode is None:
            _signal(process, signal.SIGTERM)
            await _at_most(STOP_S, process.wait())
    finally:
        _signal(process, signal.SIGKILL)
        await process.wait()
        process.stdin.close()
        await _at_most(STOP_S, asyncio.gather(process.stdout.read(), last_words))


async def _at_most(seconds: float, wait: Awaitable[object]) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(wait, seconds)


def _signal(process: Process, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):  # macOS refuses where all are dead
        os.killpg(process.pid, number)


# --- the child's side ----------------------------------------------------------------------------


@attrs.define
class _Teller:
    """Writes lines of JSON to what was standard output; progress at most ten times a second."""

    _file: int
    _note: str = ""
    _told: float = 0.0

    def report(self, done: float, total: float | None = None, note: str = "") -> None:
        """Pass progress on, unless it is too soon for that."""
        now = time.monotonic()
        if note != self._note or done == total or now - self._told >= TELL_S:
            self._note, self._told = note, now
            self.tell(progress=[done, total, note])

    def tell(self, **message: object) -> None:
        """Write one line."""
        data = json.dumps(message).encode() + b"\n"
        while data:
            data = data[os.write(self._file, data) :]


def main() -> None:
    """Run the function that the command line names."""
    raise_oom_score()
    teller = _Teller(os.dup(1))
    os.dup2(2, 1)  # what libraries print is no message
    spec = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    module, _, name = sys.argv[1].partition(":")
    function = getattr(importlib.import_module(module), name)
    try:
        teller.tell(result=function(spec, teller.report))
    except LmxError as error:
        fields = ("code", "message", "param", "retry_after_s", "retryable")
        teller.tell(error={field: getattr(error, field) for field in fields})


def _end_with_parent() -> None:
    while os.read(0, 4096):
        pass
    os._exit(0)


if __name__ == "__main__":
    main()
