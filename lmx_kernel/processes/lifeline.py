"""How a child process ends when its parent is gone, however the parent ended.

There are two ways, since neither is enough. A *lifeline* is a pipe or socket that the parent holds
open: its end of file means that the parent is gone. That works on every system, but not while the
child is stopped, or holds the interpreter in native code. There only another process can end it:
Linux itself, or elsewhere a small one (:mod:`lmx_kernel.processes.orphan_watch`).
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import sys
import threading
from contextlib import suppress

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def system_ends_orphans() -> bool:
    """Return whether the system can kill a child whose parent has ended."""
    return sys.platform == "linux"


def die_with_parent() -> None:
    """Let the system kill this process when its parent ends, where the system can.

    Linux takes the *thread* that started the child for its parent (``man 2 prctl``,
    PR_SET_PDEATHSIG): not for a child of a thread that may end before its process does.
    """
    if system_ends_orphans():
        with suppress(OSError, AttributeError):  # an interpreter that is linked statically
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def exit_if_closed(file: int) -> None:
    """End this process if the other end of the socket ``file`` is closed already, also if there is
    still something to read from it.

    The system does not kill a child whose parent ended before :func:`die_with_parent` was called,
    so that is called first, and this then.
    """
    poll = select.poll()
    poll.register(file, select.POLLHUP)  # Linux reports it in any case, macOS where it is asked for
    if any(event & select.POLLHUP for _, event in poll.poll(0)):
        os._exit(0)


def watch_lifeline(file: int) -> None:
    """End this process when the file descriptor ``file`` is at its end. What comes through it
    before is thrown away.
    """
    threading.Thread(target=_exit_at_end, args=(file,), daemon=True).start()


def _exit_at_end(file: int) -> None:
    while os.read(file, 4096):
        pass
    os._exit(0)
