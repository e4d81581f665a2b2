"""Long work in a child process: it can be killed at any time, and what it imports never enters the
daemon.

Run as ``python -m lmx_kernel.jobs.child module:function``: the spec comes as a line of JSON on
standard input, which stays open as the child's lifeline; progress and the result go out as lines of
JSON on standard output.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import signal
import sys
import time
from asyncio.subprocess import PIPE
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

import attrs

from lmx_kernel.errors import InternalError, LmxError, from_code
from lmx_kernel.interfaces import Report
from lmx_kernel.processes.child import ChildProcess, describe_exit, module_command
from lmx_kernel.processes.lifeline import die_with_parent, watch_lifeline
from lmx_kernel.processes.oom_score import raise_oom_score
from lmx_kernel.processes.thread_stacks import set_thread_stacks

LINE_BYTES = 2**24
STOP_S = 3.0
REPORT_S = 0.1


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
    command = module_command("lmx_kernel.jobs.child", target)
    variables = {**(env or {}), **secrets}
    child = await ChildProcess.start(*command, stdout=PIPE, env=variables, line_bytes=LINE_BYTES)
    try:
        child.stdin.write(json.dumps(spec).encode() + b"\n")
        outcome = await _follow(child.stdout, report)
        if outcome is None:
            raise InternalError(f"{target} failed: {await _last_words(child)}")
    except LmxError as error:
        raise _without(error, secrets.values()) from None
    finally:
        await _end(child)
    return outcome


# --- the parent's side ---------------------------------------------------------------------------


async def _follow(lines: asyncio.StreamReader, report: Report) -> dict[str, Any] | None:
    """Pass progress on until the child sends its result; None if it ends without one."""
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


async def _last_words(child: ChildProcess) -> str:
    """Return how the child ended, with the last line of its standard error."""
    await asyncio.wait({child.exited})
    last_line = child.stderr_tail.rpartition("\n")[2].strip()
    how = describe_exit(child.exited.result())
    return f"{how}: {last_line}" if last_line else how


async def _end(child: ChildProcess) -> None:
    """Make sure that the child is gone, and whatever it started in its session."""
    try:
        if not child.exited.done():
            child.send_signal(signal.SIGTERM)
        await child.end(STOP_S)
    finally:
        child.stdin.close()
        with suppress(TimeoutError):  # its pipe is closed once all is read
            await asyncio.wait_for(child.stdout.read(), STOP_S)


# --- the child's side ----------------------------------------------------------------------------


@attrs.define
class _Reporter:
    """Writes lines of JSON to what was standard output; progress at most ten times a second."""

    _file: int
    _note: str = ""
    _reported_at: float = 0.0

    def report(self, done: float, total: float | None = None, note: str = "") -> None:
        """Pass progress on, unless it is too soon for that."""
        now = time.monotonic()
        if note != self._note or done == total or now - self._reported_at >= REPORT_S:
            self._note, self._reported_at = note, now
            self.send(progress=[done, total, note])

    def send(self, **message: object) -> None:
        """Write one line."""
        data = json.dumps(message).encode() + b"\n"
        while data:
            data = data[os.write(self._file, data) :]


def main() -> None:
    """Run the function that the command line names."""
    die_with_parent()
    set_thread_stacks()
    raise_oom_score()
    reporter = _Reporter(os.dup(1))
    os.dup2(2, 1)  # what libraries print is no message
    spec = json.loads(sys.stdin.buffer.readline())
    watch_lifeline(0)
    module, _, name = sys.argv[1].partition(":")
    function = getattr(importlib.import_module(module), name)
    try:
        reporter.send(result=function(spec, reporter.report))
    except LmxError as error:
        fields = ("code", "message", "param", "retry_after_s", "retryable")
        reporter.send(error={field: getattr(error, field) for field in fields})


if __name__ == "__main__":
    main()
