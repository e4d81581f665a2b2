"""The stack of every thread, which some C libraries make very small."""

from __future__ import annotations

import threading
from contextlib import suppress

SIZE_BYTES = 8 << 20
"""What most Linux systems give. musl gives 128 KiB, and to compile an expression in 150
brackets takes more, which ends the process. Only pages that are touched take memory.
"""


def set_thread_stacks() -> None:
    """Give each thread that starts from now on the same stack on every system."""
    with suppress(ValueError, RuntimeError):  # the system has no such setting
        threading.stack_size(SIZE_BYTES)
