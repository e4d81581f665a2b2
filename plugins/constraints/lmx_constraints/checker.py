"""Trying grammars in a child process, which may be killed, before they are compiled beside a model.

A grammar comes from a client, and some take minutes or gigabytes before they turn out to be wrong.
So a child compiles each one first, for a vocabulary of single bytes, and takes its first steps.
Only a grammar that passes is compiled in the worker.

Run as ``python -m lmx_constraints.checker``: it reads one line of JSON with the control tokens, and
then answers each line with a grammar by a line with a verdict.
"""

from __future__ import annotations

import json
import random
import select
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import lru_cache
from typing import Any

import psutil

from lmx_kernel.errors import UnavailableError
from lmx_kernel.processes.child import module_command
from lmx_kernel.processes.environment import child_environment
from lmx_kernel.processes.limits import limit_cpu, limit_memory

DEADLINE_S = 1.5
"""For one grammar, from its line to the verdict."""

START_S = 20.0
"""Until the child is ready: a machine may be busy."""

MEMORY_BYTES = 1 << 30
LOOK_S = 0.05
"""Between two looks at the memory of a child that has not answered."""

STEPS, STEPS_S = 512, 0.3
"""How far the child follows a grammar, at most: many faults show no earlier."""

STEP_S = 0.01
"""The average step may take so long: in the worker, other streams wait for each step."""

MAX_STATES = 50_000
"""Of a grammar's lexer; each takes 1 to 2 kB."""

CLOSERS = frozenset(b'"}],')
"""Bytes that close something in JSON."""

MAX_VERDICTS = 256
"""Verdicts that are remembered."""

REASON_CHARS = 300


class ChildMemoryError(OSError):
    """The child uses more memory than it may."""


class GrammarChecker:
    """Finds out which grammars are safe to compile. Its calls may come from any thread.

    :param size: of the vocabulary.
    :param controls: the texts of control tokens by their ids.
    """

    def __init__(self, size: int, controls: Mapping[int, str]) -> None:
        self._hello = json.dumps({"size": size, "controls": controls})
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._verdict = lru_cache(MAX_VERDICTS)(self._ask)

    def problem_with(self, grammar: str) -> str:
        """Return why a grammar cannot be followed, or costs too much; "" if it is safe to compile.

        A grammar that cost too much is tried again the next time: the machine may have been busy.

        :raises UnavailableError: no child process can be started now.
        """
        try:
            return self._verdict(grammar)
        except OSError:
            return "it takes too much time or memory to compile"

    def close(self) -> None:
        """End the child."""
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            child.communicate()

    def _ask(self, grammar: str) -> str:
        with self._lock:
            if self._child is not None:
                with suppress(ConnectionError):  # the grammar before may have killed it
                    return self._exchange(grammar, DEADLINE_S)
            self._start()
            return self._exchange(grammar, DEADLINE_S)

    def _start(self) -> None:
        try:
            self._child = subprocess.Popen(  # noqa: S603 - itself
                module_command(__name__),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=child_environment(),
            )
            self._exchange(self._hello, START_S)
        except OSError as error:
            raise UnavailableError(
                f"grammars cannot be compiled now: {error}", retry_after_s=5
            ) from error

    def _exchange(self, line: str, deadline_s: float) -> str:
        """Send a line and return the answer to it; a child that gives none is killed.

        :raises TimeoutError: no answer came in time.
        :raises ConnectionError: the child is dead.
        """
        assert self._child
        assert self._child.stdin
        assert self._child.stdout
        try:
            self._child.stdin.write(line.encode() + b"\n")
            self._child.stdin.flush()
            self._wait(self._child, deadline_s)
            if not (answer := self._child.stdout.readline()):
                raise ConnectionError("the child process died")
        except OSError:
            self.close()
            raise
        return str(json.loads(answer))

    def _wait(self, child: subprocess.Popen[bytes], deadline_s: float) -> None:
        """Wait until the child answers or ends, and watch what it uses meanwhile.

        :raises TimeoutError: no answer came in time.
        :raises ChildMemoryError: it uses more than it may.
        """
        until_s = time.monotonic() + deadline_s
        while not select.select([child.stdout], [], [], LOOK_S)[0]:
            if time.monotonic() > until_s:
                raise TimeoutError(f"no answer within {deadline_s:g} seconds")
            with suppress(psutil.Error):
                if psutil.Process(child.pid).memory_info().rss > MEMORY_BYTES:
                    raise ChildMemoryError(f"more than {MEMORY_BYTES} bytes are in use")


def first_line(message: str) -> str:
    """Return the part of the library's message that a client may see."""
    lines = message.strip().splitlines() or [""]
    causes = [line for line in lines if line.startswith("error: ")]  # below a pattern
    line = causes[0].removeprefix("error: ") if causes else lines[0]
    if line == "NoExtensionBias":
        return "nothing can fit it"
    return "it cannot be followed" if line.startswith("panic") else line[:REASON_CHARS]


# --- the child's side ----------------------------------------------------------------------------


class ByteVocabulary:
    """Control tokens at their own ids, empty tokens at all other ids, and all bytes after these.

    :ivar first: the id of the first byte.
    """

    def __init__(self, size: int, controls: Mapping[str, str]) -> None:
        self.first = -(-size // 8) * 8
        self.tokens = [b""] * self.first + [bytes([byte]) for byte in range(256)]
        for token, text in controls.items():
            self.tokens[int(token)] = text.encode()
        self.special_token_ids = [*map(int, controls)]
        self.bos_token_id = None
        self.eos_token_id = min(self.special_token_ids, default=0)

    def __call__(self, text: bytes) -> list[int]:
        return [self.first + byte for byte in text]


def limits() -> Any:
    """Return what one grammar may cost; all other limits are the library's defaults."""
    from llguidance import LLParserLimits  # noqa: PLC0415 - takes 60 ms, and few requests need it

    return LLParserLimits(verbose_errors=False, max_lexer_states=MAX_STATES)


def first_problem(tokenizer: Any, first: int, grammar: str) -> str:
    """Return what is wrong with a grammar, as far as its first steps show; "" for nothing.

    :param first: the id of the first byte.
    """
    from llguidance import LLMatcher  # noqa: PLC0415 - as above

    matcher = LLMatcher(tokenizer, grammar, log_level=0, limits=limits())
    dice, began_s, used_s = random.Random(0), time.monotonic(), time.process_time()
    for step in range(STEPS):
        if matcher.is_error() or matcher.is_stopped():
            break
        if step < STEPS_S / STEP_S:  # not by the clock: on a busy machine every grammar is slow
            if time.process_time() - used_s > STEPS_S:
                return "it takes too long to follow"
        elif time.monotonic() - began_s > STEPS_S:
            return ""
        mask = matcher.compute_bitmask()
        if not matcher.is_error():
            matcher.consume_token(_choose(mask, first, dice))
    return first_line(matcher.get_error()) if matcher.is_error() else ""


def _choose(mask: bytes, first: int, dice: random.Random) -> int:
    """Return one of the allowed tokens, half of the time one that closes something."""
    at = first // 8
    others, bits = mask[:at], int.from_bytes(mask[at : at + 32], "little")
    allowed = [byte for byte in range(256) if bits >> byte & 1]
    closing = [byte for byte in allowed if byte in CLOSERS]
    if closing and dice.random() < 0.5:
        allowed = closing
    if allowed:
        return first + dice.choice(allowed)
    found = next((at for at, byte in enumerate(others) if byte), 0)
    return found * 8 + max((others[found] & -others[found]).bit_length() - 1, 0)


def main() -> None:
    """Answer grammars with verdicts until the input ends."""
    from llguidance import LLTokenizer, TokenizerWrapper  # noqa: PLC0415 - as above

    limit_memory(MEMORY_BYTES)  # where that cannot be, the parent watches
    lines: Iterable[bytes] = sys.stdin.buffer
    vocabulary = ByteVocabulary(**json.loads(next(iter(lines))))
    tokenizer = LLTokenizer(TokenizerWrapper(vocabulary), n_vocab=len(vocabulary.tokens))
    _answer("")
    for line in lines:
        limit_cpu(DEADLINE_S + 1)  # so that this child ends even if its parent has died
        _answer(first_problem(tokenizer, vocabulary.first, line.decode()))


def _answer(text: str) -> None:
    sys.stdout.write(json.dumps(text) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
