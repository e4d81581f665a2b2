"""The child process that tries grammars: it compiles each for a vocabulary of single bytes, and
takes its first steps.

Run as ``python -m lmx_constraints.trial``: it reads one line of JSON with the control tokens, and
then answers each line with a grammar by a line with a verdict.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Iterable, Mapping
from typing import Any

from lmx_kernel.processes.limits import limit_cpu, limit_memory

DEADLINE_S = 1.5
"""For one grammar, from its line to the verdict."""

MEMORY_BYTES = 1 << 30

STEPS, STEPS_S = 512, 0.3
"""How far the child follows a grammar, at most: many faults show no earlier."""

STEP_S = 0.01
"""The average step may take so long: in the worker, other streams wait for each step."""

MAX_STATES = 50_000
"""Of a grammar's lexer; each takes 1 to 2 kB."""

CLOSERS = frozenset(b'"}],')
"""Bytes that close something in JSON."""

REASON_CHARS = 300


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


def first_line(message: str) -> str:
    """Return the part of the library's message that a client may see."""
    lines = message.strip().splitlines() or [""]
    causes = [line for line in lines if line.startswith("error: ")]  # below a pattern
    line = causes[0].removeprefix("error: ") if causes else lines[0]
    if line == "NoExtensionBias":
        return "nothing can fit it"
    return "it cannot be followed" if line.startswith("panic") else line[:REASON_CHARS]


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

    limit_memory(MEMORY_BYTES)  # where the system cannot, the parent's watch is the only bound
    lines: Iterable[bytes] = sys.stdin.buffer
    vocabulary = ByteVocabulary(**json.loads(next(iter(lines))))
    tokenizer = LLTokenizer(TokenizerWrapper(vocabulary), n_vocab=len(vocabulary.tokens))
    _answer("")
    for line in lines:
        limit_cpu(DEADLINE_S + 2)  # this process ends even if its parent has died meanwhile
        verdict = first_problem(tokenizer, vocabulary.first, line.decode())
        limit_cpu(0)
        _answer(verdict)


def _answer(text: str) -> None:
    sys.stdout.write(json.dumps(text) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
