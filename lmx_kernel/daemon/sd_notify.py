"""Tells a service manager how the daemon is, in systemd's protocol; without one, tells nobody."""

from __future__ import annotations

import asyncio
import os
import socket

import structlog

SEND_S = 0.5
log = structlog.get_logger(__name__)


def notify(*assignments: str) -> None:
    """Send such as ``READY=1``, ``STOPPING=1`` and ``STATUS=what a human reads`` in one message."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    if address.startswith("@"):  # not in the file system
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.settimeout(SEND_S)
            sock.sendto("\n".join(assignments).encode(), address)
    except OSError as error:
        log.warning("notify_failed", reason=str(error))


def is_journal(descriptor: int) -> bool:
    """Return whether an output of this process goes to systemd's journal (systemd.exec(5))."""
    try:
        status = os.fstat(descriptor)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


async def feed_watchdog() -> None:
    """Send signs of life from the event loop, twice as often as the service manager wants them.

    If the loop is stuck they fail to come, and the service manager starts the daemon anew. Returns
    at once where nobody waits for them.
    """
    interval_s = watchdog_s() / 2
    while interval_s:
        notify("WATCHDOG=1")
        await asyncio.sleep(interval_s)


def watchdog_s() -> float:
    """Return how often the service manager wants a sign of life at least; 0 for never."""
    limit_us, pid = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID")
    is_ours = pid in (None, str(os.getpid()))
    return int(limit_us) / 1e6 if is_ours and limit_us.isdecimal() else 0.0
