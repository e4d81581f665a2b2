"""When a request came to which point."""

from __future__ import annotations

import time

from attrs import define, field


@define
class Stopwatch:
    """Notes times in monotonic seconds; of each point only the first time counts."""

    created: float = field(factory=time.monotonic)
    started: float | None = None
    first_token: float | None = None
    ended: float | None = None

    def start(self) -> None:
        """Note that the request left the queue."""
        self.started = self.started or time.monotonic()

    def token(self) -> None:
        """Note that a token came."""
        self.first_token = self.first_token or time.monotonic()

    def end(self) -> None:
        """Note that the request ended."""
        self.ended = self.ended or time.monotonic()

    @property
    def queue_s(self) -> float:
        """How long it waited, so far if it still waits."""
        return (self.started or self.ended or time.monotonic()) - self.created

    @property
    def first_token_s(self) -> float | None:
        """How long the first token took; None before it came."""
        return self.first_token and self.first_token - self.created

    @property
    def total_s(self) -> float:
        """How long all of it took, so far if it goes on."""
        return (self.ended or time.monotonic()) - self.created
