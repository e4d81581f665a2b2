"""Long texts in pieces, and the stack that a piece takes.

llama.cpp splits text into words with ``std::regex``, which recurses once for each character of a
match (libstdc++, ``bits/regex_executor.tcc``, ``_M_dfs``). A match may be as long as the text: a
run of spaces, a line of base64. So no piece is longer than :data:`MAX_PIECE_CHARS`, and one that is
not short is read on a thread with a stack that is large enough for a match of the whole piece.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Future
from typing import TypeVar

MAX_PIECE_CHARS = 1 << 15
SHORT_CHARS = 1000
"""Up to so many characters any thread's stack is large enough."""

STACK_BYTES = 1 << 26
"""For a piece. Measured on all kinds of llama.cpp 0.3.36 (x86-64, libstdc++): a match takes less
than 512 bytes a character, so a quarter of this."""

CUTS = (
    re.compile(r"[^\W\d_](?=\n)"),
    re.compile(r"[^\W\d_](?=[ \t])"),
    re.compile(r"\S(?=\s)"),
)
"""Where a text may be cut, the best first: between a letter and white space every kind that splits
by words begins a new word."""

GROUPS_DIGITS = frozenset({"superbpe"})
"""Rules (``tokenizer.ggml.pre``) that make words of three digits, counted from the end of a number:
llama.cpp looks from each digit to the end, so the time grows with the square of the length."""

NUMBER_CHARS = 999
"""Of one number in a piece for such a rule; a multiple of three."""

_LONG_NUMBER = re.compile(rf"[0-9]{{{NUMBER_CHARS + 1},}}")

T = TypeVar("T")
_starting = threading.Lock()


def split(text: str, special: Collection[str]) -> Iterator[str]:
    """Yield ``text`` in pieces of at most :data:`MAX_PIECE_CHARS`.

    Without white space for half that length it is cut anywhere, but not inside a special text.

    :param special: the texts of tokens that must stay whole.
    """
    start = 0
    while len(text) - start > MAX_PIECE_CHARS:
        end = _whole(text, _cut(text, start), special)
        yield text[start:end]
        start = end
    yield text[start:]


def split_numbers(text: str) -> Iterator[str]:
    """Yield ``text`` in pieces with at most :data:`NUMBER_CHARS` digits in a row.

    A number is cut where two groups of three digits meet, counted from its end. There a rule of
    :data:`GROUPS_DIGITS` begins a new word anyway, so the cut changes no token.
    """
    start = 0
    for number in _LONG_NUMBER.finditer(text):
        first = number.start() + (number.end() - number.start()) % NUMBER_CHARS
        for cut in range(first, number.end(), NUMBER_CHARS):
            if cut > start:
                yield text[start:cut]
            start = cut
    yield text[start:]


def with_wide_stack(call: Callable[[], T]) -> T:
    """Call on a thread of its own that has a stack of :data:`STACK_BYTES`; return the result.

    A new thread each time, so that the stack's memory is free again afterwards.
    """
    done: Future[T] = Future()

    def run() -> None:
        try:
            done.set_result(call())
        except BaseException as error:  # noqa: BLE001 - it is raised where the result is awaited
            done.set_exception(error)

    thread = threading.Thread(target=run, daemon=True)
    with _starting:  # the size holds for all threads that start meanwhile
        usual = threading.stack_size(STACK_BYTES)
        try:
            thread.start()
        finally:
            threading.stack_size(usual)
    return done.result()


def _cut(text: str, start: int) -> int:
    """Return the last good place for a cut in the second half of what a piece may hold."""
    middle, end = start + MAX_PIECE_CHARS // 2, start + MAX_PIECE_CHARS
    for pattern in CUTS:
        last = None
        for last in pattern.finditer(text, middle, end):  # noqa: B007 - the last one is wanted
            pass
        if last is not None:
            return last.end()
    return end


def _whole(text: str, cut: int, special: Collection[str]) -> int:
    """Return ``cut``, or the start of the special text that it would cut."""
    for one in special:
        at = text.find(one, cut - len(one) + 1, cut + len(one) - 1)
        if at >= 0:
            return at
    return cut
