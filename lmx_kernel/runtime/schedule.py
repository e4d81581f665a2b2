"""What is loaded and unloaded at a time of day."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime, time, timedelta
from typing import Literal, get_args

from attrs import field, frozen, validators

MAX_LATE = timedelta(minutes=10)
Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
DAYS: tuple[Day, ...] = get_args(Day)


@frozen(kw_only=True)
class ScheduledChange:
    """One entry of ``models.schedule``.

    :ivar at: the local time, ``HH:MM``.
    :ivar days: the weekdays.
    :ivar unload: models to unload, first.
    :ivar load: models to load, then.
    """

    at: str = field(validator=validators.matches_re(r"([01][0-9]|2[0-3]):[0-5][0-9]"))
    days: tuple[Day, ...] = DAYS
    unload: tuple[str, ...] = ()
    load: tuple[str, ...] = ()


def due(
    changes: Iterable[ScheduledChange], since: datetime, now: datetime
) -> Iterator[ScheduledChange]:
    """Yield the changes whose time came after ``since`` and not after ``now``, both local.

    A change that the machine slept through is made up for within ten minutes; after a jump of the
    clock nothing older is.
    """
    since = max(since, now - MAX_LATE)
    for change in changes:
        moment = datetime.combine(now.date(), time.fromisoformat(change.at), now.tzinfo)
        if moment > now:  # it may have been due before midnight
            moment -= timedelta(days=1)
        if since < moment and DAYS[moment.weekday()] in change.days:
            yield change
