"""A sign from within a long computation of llama.cpp, and a way to end it.

Between two nodes of its graph the library asks an abort callback whether to go on. A callback in
Python waits for the interpreter's lock each time, some 500 times in a piece of a prompt, which took
steps 1.6 to 1.9 times as long beside another busy thread. So the callback is a function of the C
library that has the same signature: it takes a pointer and returns a number, 0 for "go on".
"""

from __future__ import annotations

import ctypes
from typing import Any, Protocol

import llama_cpp as llama
from attrs import define, field

MOST = (1 << 31) - 1
"""The largest value of a semaphore (SEM_VALUE_MAX): the nodes of millions of computations."""

OBJECT_BYTES = 128
"""The largest ``sigset_t`` and ``sem_t`` (Linux)."""


class AbortCallback(Protocol):
    """A function of the C library, and what is known of its calls.

    :ivar can_stop: whether it can be told to end a computation.
    :ivar function: its address.
    :ivar argument: the address of what it is called with.
    """

    can_stop: bool
    function: int
    argument: int

    def read(self) -> int:
        """Return a number that is another one if it was called since the last time."""
        ...

    def stop(self) -> None:
        """Let its next call end the computation."""
        ...

    def allow(self) -> None:
        """Let computations go on again."""
        ...


@define
class SemaphoreCallback:
    """``sem_trywait`` (POSIX) takes one from a counter and returns 0; where that is zero, it leaves
    it and returns -1. So the counter tells how often it was called, and zero ends a computation.
    """

    can_stop = True
    function: int
    _libc: Any
    _semaphore: Any = field(factory=ctypes.c_uint8 * OBJECT_BYTES, init=False)
    _left: int = field(default=MOST, init=False)

    @classmethod
    def make(cls, libc: Any) -> AbortCallback | None:
        """Return one; None where semaphores have no memory of their own (macOS)."""
        made = cls(_address(libc.sem_trywait), libc)
        return made if made._set(MOST) else None

    @property
    def argument(self) -> int:
        """The address of the counter."""
        return ctypes.addressof(self._semaphore)

    def read(self) -> int:
        """Return the counter."""
        value = ctypes.c_int()
        self._libc.sem_getvalue(self._semaphore, ctypes.byref(value))
        return value.value

    def stop(self) -> None:
        """Let the next call return -1."""
        self._left = self.read() or self._left
        self._set(0)

    def allow(self) -> None:
        """Count on from where it was, so that no number comes twice soon."""
        left = self.read() or self._left
        self._set(left if left > MOST // 2 else MOST)

    def _set(self, value: int) -> bool:
        return self._libc.sem_init(self._semaphore, 0, value) == 0


@define
class MarkCallback:
    """``sigemptyset`` (POSIX) zeroes what is a set of signals to it, and returns 0 always."""

    can_stop = False
    function: int
    _mark: Any = field(factory=ctypes.c_uint8 * OBJECT_BYTES, init=False)
    _count: int = field(default=0, init=False)

    @classmethod
    def make(cls, libc: Any) -> AbortCallback:
        """Return one."""
        return cls(_address(libc.sigemptyset))

    @property
    def argument(self) -> int:
        """The address of the mark."""
        return ctypes.addressof(self._mark)

    def read(self) -> int:
        """Return how often the mark was found cleared."""
        if not self._mark[0]:
            self._count += 1
            self._mark[0] = 1
        return self._count

    def stop(self) -> None:
        """Do nothing: it cannot be told."""

    def allow(self) -> None:
        """Do nothing."""


@define
class Pulse:
    """Tells whether a context computes, and ends what it computes.

    :param handle: of the context.
    """

    handle: int
    _callback: AbortCallback = field(init=False)

    def __attrs_post_init__(self) -> None:
        libc = ctypes.CDLL(None)
        self._callback = SemaphoreCallback.make(libc) or MarkCallback.make(libc)
        function = llama.ggml_abort_callback(self._callback.function)
        llama.llama_set_abort_callback(self.handle, function, self._callback.argument)

    @property
    def can_stop(self) -> bool:
        """Whether :meth:`stop` ends a computation."""
        return self._callback.can_stop

    def read(self) -> int:
        """Return a number that is another one if nodes were computed since the last call.

        Never waits, and may be called by one thread at a time, also during a computation.
        """
        return self._callback.read()

    def stop(self) -> None:
        """End the computation that runs, or the next one, after the node that it is at; called by
        any thread.
        """
        self._callback.stop()

    def allow(self) -> None:
        """Let computations go on again after :meth:`stop`; called after each of them."""
        self._callback.allow()


def _address(function: Any) -> int:
    return ctypes.cast(function, ctypes.c_void_p).value or 0
