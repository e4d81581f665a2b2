"""The section ``[host_monitor]`` of the config."""

from __future__ import annotations

from attrs import field, frozen, validators


@frozen
class HostMonitorSettings:
    """How the machine is watched.

    :param interval_s: from one look to the next.
    """

    interval_s: float = field(default=5.0, validator=validators.gt(0))
