"""An answer as its reader sees it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self

from lmx_kernel.types import Event, GenerationRequest, Usage


class Answer(ABC):
    """The events of an answer, for one reader.

    Use it as a context manager: leaving it cancels what still runs.

    :ivar id: unique, for logs and headers.
    :ivar model: the catalogue id of the model that answers.
    :ivar outcome: ``ok``, ``cancelled`` or an error's code; None while it runs.
    """

    id: str
    model: str
    outcome: str | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        event = await self.next()
        assert event is not None
        return event

    @property
    def fingerprint(self) -> str:
        """What stands for all that it depends on beside the request, see
        :class:`~lmx_kernel.types.Admitted`; "" until that is known.
        """
        return ""

    @abstractmethod
    async def next(self, timeout_s: float | None = None) -> Event | None:
        """Return the next event, or None if none came within ``timeout_s``.

        :raises LmxError: the answer failed.
        :raises StopAsyncIteration: it is complete.
        """

    @abstractmethod
    def usage(self) -> Usage:
        """Return its tokens and times so far."""

    @abstractmethod
    def close(self) -> None:
        """Cancel what still runs. Has no effect after the end."""


class AnswerObserver(Protocol):
    """Sees the events of one answer, in order, in a thread of its plugin. One that is too slow
    misses some. One plugin's observers that raise three times in a row are not called any more.
    """

    def see(self, event: Event) -> None:
        """Take an event that the client gets too."""
        ...

    def end(self, outcome: str, usage: Usage) -> None:
        """Take the end.

        :param outcome: ``ok``, ``cancelled`` or an error's code.
        """
        ...


AnswerHook = Callable[[GenerationRequest, str, str], AnswerObserver | None]
"""Returns what observes an answer: to this request, by this model, of this id; None for nothing."""

Transform = Callable[[GenerationRequest], object]
"""Returns the request to use instead of one, or None for the same; raises LmxError to refuse it."""
