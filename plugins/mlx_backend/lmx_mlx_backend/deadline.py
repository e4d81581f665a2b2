"""A limit on how long code of someone else may take."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

GRACE_S = 1.0
"""Python code ends within this when it is interrupted; native code may not end at all."""


@contextmanager
def deadline(seconds: float, origin: str, work: str) -> Iterator[None]:
    """Interrupt the block after ``seconds``; for the main thread only.

    Native code cannot be interrupted: then the process ends, and its last words are the reason.

    :param origin: whose code it is, for the last words.
    :param work: what the block does, as in "building it".
    :raises TimeoutError: it took too long.
    """
    reason = f"{work} took longer than {seconds:.0f} s"

    def expire(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(reason)

    handler = signal.signal(signal.SIGALRM, expire)
    left_s, _ = signal.setitimer(signal.ITIMER_REAL, seconds)
    last_resort = threading.Timer(seconds + GRACE_S, _end, [f"{origin}{reason}"])
    last_resort.daemon = True
    last_resort.start()
    try:
        yield
    finally:
        last_resort.cancel()
        signal.setitimer(signal.ITIMER_REAL, left_s)
        signal.signal(signal.SIGALRM, handler)


def _end(words: str) -> None:
    print(words, file=sys.stderr, flush=True)  # noqa: T201 - the kernel reads it
    os._exit(1)
