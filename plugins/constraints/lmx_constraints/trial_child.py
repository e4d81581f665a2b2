"""A child process that tries grammars, as its parent sees it."""

from __future__ import annotations

import json
import select
import subprocess
import time
from contextlib import suppress

from lmx_constraints import trial
from lmx_kernel.errors import UnavailableError
from lmx_kernel.processes.child import module_command
from lmx_kernel.processes.environment import child_environment
from lmx_kernel.processes.limits import Usage, usage_of

START_S = 20.0
"""Until a child is ready: a machine may be busy."""

WATCH_S = 0.05
"""How often a child's memory is looked at while it tries a grammar."""

TOO_SLOW = "it takes too much time to compile"
TOO_LARGE = "it takes too much memory to compile"

UNUSED = Usage(0, 0.0)


class BusyError(Exception):
    """No verdict came in time although the child had hardly run: the machine is busy."""


class TrialChild:
    """Runs :mod:`lmx_constraints.trial`. It is started when it is first needed, and again after it
    had to be killed. One thread at a time may use it.

    :param hello: the child's first line.
    :ivar used_s: processor time that its last grammar took, in seconds.
    """

    def __init__(self, hello: str) -> None:
        self.used_s = 0.0
        self._hello = hello
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The process id; None where there is no process now."""
        return self._process.pid if self._process is not None else None

    def verdict_on(self, grammar: str) -> str:
        """Return what is wrong with a grammar; "" for nothing.

        :raises BusyError: there is no verdict, and the grammar is not to blame.
        :raises UnavailableError: no child process can be started now.
        """
        self.used_s = 0.0
        if self._process is not None and self._process.poll() is None:
            with suppress(ConnectionError):  # it was killed from outside, or by the last grammar
                return self._try(grammar)
        self._start()
        try:
            return self._try(grammar)
        except ConnectionError:
            return TOO_LARGE  # within its limit of the address space, or by the system

    def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()

    def _start(self) -> None:
        self.close()
        try:
            self._process = subprocess.Popen(  # noqa: S603 - a module of this package
                module_command(trial.__name__),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=child_environment(),
            )
            self._send(self._hello)
            if not self._has_answer(START_S):
                raise TimeoutError(f"no answer within {START_S:g} seconds")
            self._receive()
        except OSError as error:
            self.close()
            raise UnavailableError(
                f"grammars cannot be compiled now: {error}", retry_after_s=5
            ) from error

    def _try(self, grammar: str) -> str:
        """Return the verdict of the process that runs now.

        :raises ConnectionError: it is dead.
        """
        before, began_s = self._usage().cpu_s, time.monotonic()
        try:
            self._send(grammar)
            while not self._has_answer(WATCH_S):
                usage = self._usage()
                self.used_s = max(usage.cpu_s - before, 0.0)
                if usage.memory_bytes > trial.MEMORY_BYTES:
                    self.close()
                    return TOO_LARGE
                if time.monotonic() - began_s > trial.DEADLINE_S:
                    return self._give_up()
            self.used_s = max(self._usage().cpu_s - before, 0.0)
            return self._receive()
        except OSError as error:
            self.close()
            raise ConnectionError from error

    def _give_up(self) -> str:
        is_slow, self.used_s = self.used_s > trial.DEADLINE_S / 2, trial.DEADLINE_S
        self.close()
        if not is_slow:
            raise BusyError
        return TOO_SLOW

    def _usage(self) -> Usage:
        return usage_of(self.pid or 0) or UNUSED

    def _send(self, line: str) -> None:
        assert self._process
        assert self._process.stdin
        self._process.stdin.write(line.encode() + b"\n")
        self._process.stdin.flush()

    def _has_answer(self, wait_s: float) -> bool:
        assert self._process
        assert self._process.stdout
        answers = select.poll()  # select() takes no file above 1023
        answers.register(self._process.stdout, select.POLLIN)
        return bool(answers.poll(wait_s * 1000))

    def _receive(self) -> str:
        """Return the process's next line.

        :raises ConnectionError: it is dead.
        """
        assert self._process
        assert self._process.stdout
        if not (answer := self._process.stdout.readline()):
            raise ConnectionError("the child process died")
        return str(json.loads(answer))
