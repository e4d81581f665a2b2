"""Models that are loaded and unloaded at a time of day."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from lmx_schedule.schedule import due

from lmx_kernel.runtime.settings import ScheduledChange

NOON = datetime(2026, 11, 24, 12, 0, 5).astimezone()  # a Tuesday


@pytest.mark.parametrize(
    ("change", "before", "expected"),
    [
        (ScheduledChange(at="12:00"), timedelta(seconds=10), True),
        (ScheduledChange(at="12:00"), timedelta(seconds=3), False),
        (ScheduledChange(at="12:01"), timedelta(seconds=10), False),
        (ScheduledChange(at="11:55"), timedelta(hours=3), True),
        (ScheduledChange(at="09:30"), timedelta(hours=3), False),
        (ScheduledChange(at="12:00", days=("tue",)), timedelta(seconds=10), True),
        (ScheduledChange(at="12:00", days=("wed", "mon")), timedelta(seconds=10), False),
        (ScheduledChange(at="12:00"), timedelta(seconds=-60), False),
    ],
)
def test_a_change_is_due_once_soon_after_its_time(change, before, expected):
    assert (list(due([change], NOON - before, NOON)) == [change]) is expected


def test_a_change_just_before_midnight_is_made_up_for_after_it():
    night = datetime(2026, 11, 25, 0, 0, 3).astimezone()
    change = ScheduledChange(at="23:59", days=("tue",))
    assert list(due([change], night - timedelta(seconds=100), night)) == [change]
    assert list(due([change], night - timedelta(seconds=10), night)) == []
