"""A sign from within a long computation of llama.cpp."""

from __future__ import annotations

import ctypes
from typing import Any

import llama_cpp as llama
from attrs import define, field

SIGNAL_SET_BYTES = 128
"""The largest ``sigset_t`` (Linux)."""


@define
class Pulse:
    """Tells whether a context computes: between two nodes of its graph the library clears a mark.

    The library's abort callback does it. A callback in Python waits for the interpreter's lock at
    each node, some 500 times in a piece of a prompt, which took steps 1.6 to 1.9 times as long
    beside another busy thread. So the callback is a function of the C library, of the same
    signature, that writes through its only argument and returns 0, "do not abort": ``sigemptyset``
    (POSIX) zeroes what is a set of signals to it.

    :param handle: of the context.
    """

    handle: int
    _mark: Any = field(factory=ctypes.c_uint8 * SIGNAL_SET_BYTES, init=False)
    _count: int = field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        function = ctypes.cast(ctypes.CDLL(None).sigemptyset, ctypes.c_void_p).value
        callback = llama.ggml_abort_callback(function)
        llama.llama_set_abort_callback(self.handle, callback, ctypes.addressof(self._mark))

    def read(self) -> int:
        """Return a number that is another one if nodes were computed since the last call.

        Never waits, and may be called by one thread at a time, also during a computation.
        """
        if not self._mark[0]:
            self._count += 1
            self._mark[0] = 1
        return self._count
