"""A limit on how long code of someone else may take."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def deadline(seconds: float, message: str) -> Iterator[None]:
    """Interrupt the block after ``seconds``; for the main thread only.

    :raises TimeoutError: with ``message``.
    """

    def expire(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(message)

    handler = signal.signal(signal.SIGALRM, expire)
    left_s, _ = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, left_s)
        signal.signal(signal.SIGALRM, handler)
