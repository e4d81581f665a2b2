"""What a caller may use of a model: its weight, its priority and its bounds."""

from __future__ import annotations

from enum import StrEnum

from attrs import field, frozen, validators

ANONYMOUS = "#"
"""Begins the name of a caller without an API key, which is of one HTTP request only."""


class Priority(StrEnum):
    """Whose requests come first.

    :ivar rank: is greater for what comes first.
    """

    LOW = "low"
    NORMAL = "normal"
    HIGH = "high"

    __hash__ = str.__hash__  # that of enums is written in Python

    def __init__(self, _value: str) -> None:
        self.rank = len(type(self).__members__)


_at_least_one = validators.optional(validators.ge(1))


@frozen(kw_only=True)
class Terms:
    """On which terms a caller is served.

    :param weight: its share of a busy model, relative to the other callers of equal priority.
    :param priority: of its requests, unless they ask for a lower one.
    :param max_running: sequences of one model that it may run at once; None is any number.
    :param max_waiting: requests of one model that may wait; None is any number.
    :param tokens_per_minute: prompt tokens that are computed and tokens of answers; None is any
        number.
    """

    weight: float = field(default=1.0, validator=[validators.ge(0.001), validators.le(1000)])
    priority: Priority = Priority.NORMAL
    max_running: int | None = field(default=None, validator=_at_least_one)
    max_waiting: int | None = field(default=None, validator=_at_least_one)
    tokens_per_minute: int | None = field(default=None, validator=_at_least_one)

    def grant(self, asked: Priority) -> Priority:
        """Return the priority of a request that asks for one."""
        return min(asked, self.priority, key=lambda one: one.rank)


DEFAULT_TERMS = Terms()
