"""A limit on how long code of someone else may take."""

from __future__ import annotations

import faulthandler
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

GRACE_S = 1.0
"""Python code ends within this when it is interrupted; native code may not end at all."""


@contextmanager
def deadline(seconds: float, work: str) -> Iterator[None]:
    """Interrupt the block after ``seconds``; for the main thread only.

    Native code cannot be interrupted, and may let no other thread run: then the process ends, and
    its last words are where it hung.

    :param work: what the block does, as in "building it".
    :raises TimeoutError: it took too long.
    """

    def expire(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"{work} took longer than {seconds:.0f} s")

    handler = signal.signal(signal.SIGALRM, expire)
    left_s, _ = signal.setitimer(signal.ITIMER_REAL, seconds)
    faulthandler.dump_traceback_later(seconds + GRACE_S, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        signal.setitimer(signal.ITIMER_REAL, left_s)
        signal.signal(signal.SIGALRM, handler)
