"""How far the answer to one request has come."""

from __future__ import annotations

from attrs import define


@define
class ResponseProgress:
    """What was sent of an answer.

    :ivar status: 0 until the answer's head is sent.
    :ivar body_bytes: of its body.
    :ivar is_complete: whether the last of its body was sent.
    """

    status: int = 0
    body_bytes: int = 0
    is_complete: bool = False

    @property
    def has_started(self) -> bool:
        """Whether the status is sent, so that it cannot be another one."""
        return self.status != 0
