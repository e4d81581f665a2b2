"""The memory that is reserved for workers, against the budget for all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from attrs import define, field

from lmx_kernel.errors import InsufficientMemoryError

MIB, GIB = 1024**2, 1024**3


@define
class Ledger:
    """Reservations against a budget.

    :param budget: returns what all workers together may take, in bytes.
    :param free_bytes: returns what is free on the machine right now.
    :ivar held: the reserved bytes by owner.
    """

    budget: Callable[[], int]
    free_bytes: Callable[[], int]
    held: dict[str, int] = field(factory=dict, init=False)

    @property
    def budget_bytes(self) -> int:
        """What all workers together may take."""
        return self.budget()

    @property
    def reserved_bytes(self) -> int:
        """The sum of all reservations."""
        return sum(self.held.values())

    @property
    def available_bytes(self) -> int:
        """What a further reservation may take."""
        return max(0, min(self.budget_bytes - self.reserved_bytes, self.free_bytes()))

    @contextmanager
    def reserve(self, owner: str, needed_bytes: int) -> Iterator[None]:
        """Hold ``needed_bytes`` for ``owner`` while the context is open.

        :raises InsufficientMemoryError: with the figures.
        """
        available = self.available_bytes
        if needed_bytes > available:
            raise InsufficientMemoryError(
                f"{owner} needs {format_bytes(needed_bytes)} and {format_bytes(available)} are "
                f"available (budget {format_bytes(self.budget_bytes)}, "
                f"{format_bytes(self.reserved_bytes)} held by "
                f"{_names(self.held)})"
            )
        self.held[owner] = needed_bytes
        try:
            yield
        finally:
            del self.held[owner]


def format_bytes(size_bytes: int) -> str:
    """Return a size as text, in MiB or GiB."""
    return f"{size_bytes / GIB:.2f} GiB" if size_bytes >= GIB else f"{size_bytes / MIB:.0f} MiB"


def _names(held: dict[str, int]) -> str:
    return ", ".join(sorted(held)) or "nothing"
