"""The section ``[host_monitor]`` of the config."""

from __future__ import annotations

from attrs import field, frozen, validators


@frozen
class HostMonitorSettings:
    """How the machine is monitored.

    :param interval_s: the time between two samples.
    """

    interval_s: float = field(default=5.0, validator=validators.gt(0))
