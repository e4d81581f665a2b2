"""The exit statuses of `lmx serve`; docs/service.md says what supervisors do with each."""

from __future__ import annotations

from enum import IntEnum


class ExitStatus(IntEnum):
    """How `lmx serve` ended.

    :cvar OK: stopped by a signal, or the daemon of this home serves already.
    :cvar NOT_YET: something outside the config is missing and may come, such as an address.
        EX_TEMPFAIL of sysexits.h.
    :cvar CONFIG: the config is wrong; only a human can help. EX_CONFIG of sysexits.h.
    :cvar IN_USE: the port or the home is in use by another process. EADDRINUSE on Linux.
    """

    OK = 0
    NOT_YET = 75
    CONFIG = 78
    IN_USE = 98
