"""The ledger of memory: every byte that is reserved for a worker."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from attrs import define, field

from lmx_kernel.errors import InsufficientMemoryError
from lmx_kernel.memory.sizes import format_bytes


@define
class Ledger:
    """Reservations against a budget.

    :param budget: returns what all workers together may use, in bytes.
    :param free_bytes: returns what is free on the machine now.
    """

    budget: Callable[[], int]
    free_bytes: Callable[[], int]
    held: dict[str, int] = field(factory=dict, init=False)

    @property
    def budget_bytes(self) -> int:
        """What all workers together may use."""
        return self.budget()

    @property
    def reserved_bytes(self) -> int:
        """The sum of all reservations."""
        return sum(self.held.values())

    @property
    def available_bytes(self) -> int:
        """The largest further reservation that is possible."""
        return max(0, min(self.budget_bytes - self.reserved_bytes, self.free_bytes()))

    @contextmanager
    def reserve(self, owner: str, needed_bytes: int) -> Iterator[None]:
        """Reserve ``needed_bytes`` for ``owner`` while the context is open.

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
