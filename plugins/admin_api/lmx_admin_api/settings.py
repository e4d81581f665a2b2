"""The plugin's section of the config file."""

from __future__ import annotations

from attrs import field, frozen, validators


@frozen(kw_only=True)
class AdminSettings:
    """``[admin_api]``.

    :param heartbeat_s: how long the stream of events may stay silent before a comment is sent.
    :param backlog: events that wait for a slow reader; the oldest are dropped for more.
    """

    heartbeat_s: float = field(default=15.0, validator=validators.gt(0))
    backlog: int = field(default=1000, validator=validators.ge(1))
