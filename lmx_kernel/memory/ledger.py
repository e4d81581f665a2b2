"""Who holds how much memory: every byte that is promised to a worker is in here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from attrs import define, field

from lmx_kernel.errors import InsufficientMemoryError
from lmx_kernel.memory.sizes import format_bytes


@define
class Ledger:
    """Reservations against a budget.

    :param budget: asks what all workers together may take, in bytes.
    :param free_bytes: asks the machine what is free right now, whoever uses the rest.
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


def _names(held: dict[str, int]) -> str:
    return ", ".join(sorted(held)) or "nothing"
