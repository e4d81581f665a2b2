"""Connections never take the files that everything else needs."""

from __future__ import annotations

import pytest

from lmx_kernel.http.connection_limits import (
    FILES_FOR_OTHERS,
    MAX_REFUSED,
    ConnectionLimits,
    files_wanted,
)


@pytest.mark.parametrize("files", [144, 256, 1024, 4096, 10_240, 524_288])
@pytest.mark.parametrize("wanted", [2, 128, 2048, 100_000])
def test_connections_that_are_served_and_refused_leave_files_for_others(files, wanted):
    limits = ConnectionLimits.within(files, wanted)
    assert limits.served + limits.refused + FILES_FOR_OTHERS <= max(files, files_wanted(wanted))
    assert limits.served + limits.refused <= files - FILES_FOR_OTHERS
    assert 0 < limits.served <= wanted
    assert limits.refused > 0


def test_all_that_is_wanted_is_served_where_there_are_files_enough():
    assert ConnectionLimits.within(files_wanted(2048), 2048).served == 2048
    assert ConnectionLimits.within(10**6, 2048) == ConnectionLimits(2048, MAX_REFUSED)
