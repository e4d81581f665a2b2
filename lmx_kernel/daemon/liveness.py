"""Ends a daemon whose event loop is stuck, for supervisors that have no watchdog of their own.

The kernel's timer sends SIGALRM, and faulthandler's C code handles it: neither needs the
interpreter lock, so native code that holds it is noticed as well.
"""

from __future__ import annotations

import asyncio
import faulthandler
import signal

START_S = 300.0  # as TimeoutStartSec= of the systemd unit
LIMIT_S = 30.0  # as WatchdogSec= of the systemd unit


def arm(limit_s: float = START_S) -> None:
    """End this process by SIGALRM in ``limit_s``, with the traceback of every thread on standard
    error, unless :func:`arm` or :func:`disarm` is called before.
    """
    faulthandler.register(signal.SIGALRM, chain=True)
    signal.setitimer(signal.ITIMER_REAL, limit_s)


def disarm() -> None:
    """Take :func:`arm` back."""
    signal.setitimer(signal.ITIMER_REAL, 0)
    faulthandler.unregister(signal.SIGALRM)


async def stay_armed() -> None:
    """Arm again and again from the event loop, until cancelled."""
    try:
        while True:
            arm(LIMIT_S)
            await asyncio.sleep(LIMIT_S / 4)
    finally:
        disarm()
