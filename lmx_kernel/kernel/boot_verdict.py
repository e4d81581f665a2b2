"""How to start: as always, or carefully."""

from __future__ import annotations

from attrs import frozen


@frozen(kw_only=True)
class BootVerdict:
    """How to start.

    :ivar safe_mode: auto-load no model, and load no plugin of a third party.
    :ivar suspects: models that were being loaded when a daemon stopped uncleanly.
    """

    safe_mode: bool = False
    suspects: frozenset[str] = frozenset()


NORMAL = BootVerdict()
