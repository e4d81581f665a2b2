"""The end of the log, read from its files."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

from lmx_admin_api.log_tail import BLOCK_BYTES, read_tail

from lmx_kernel.observe.log import FILE

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


def write_lines(folder, numbers, name=FILE, **fields):
    folder.mkdir(exist_ok=True)
    with (folder / name).open("a") as file:
        for n in numbers:
            time = (BEGIN + timedelta(seconds=n)).isoformat().replace("+00:00", "Z")
            line = {"event": "e", "level": "info", "timestamp": time, "n": n, **fields}
            file.write(json.dumps(line) + "\n")


def numbers(found):
    return [line["n"] for line in found]


def test_the_tail_is_the_newest_lines_in_order(tmp_path):
    write_lines(tmp_path, range(10))
    assert numbers(read_tail(tmp_path, 3)) == [7, 8, 9]
    assert numbers(read_tail(tmp_path, 100)) == list(range(10))
    assert read_tail(tmp_path, 0) == []
    assert read_tail(tmp_path / "nowhere", 3) == []


def test_the_tail_goes_on_in_the_file_that_was_put_aside(tmp_path):
    write_lines(tmp_path, range(5), f"{FILE}.1")
    write_lines(tmp_path, range(5, 8))
    assert numbers(read_tail(tmp_path, 5)) == [3, 4, 5, 6, 7]


def test_the_tail_is_whole_over_many_blocks(tmp_path):
    count = 4 * BLOCK_BYTES // 150
    write_lines(tmp_path, range(count), text="é" * 20)
    assert numbers(read_tail(tmp_path, count)) == list(range(count))


def test_damaged_lines_are_passed_over(tmp_path):
    write_lines(tmp_path, [1])
    with (tmp_path / FILE).open("ab") as file:
        file.write(b'\n{"event":"cut\n[]\n\xff\xfe\n{}\n{"timestamp":3}\n{"timestamp":"noon"}\n')
        file.write(b'{"timestamp":"2026-01-01T00:00:01"}\n')
    write_lines(tmp_path, [2])
    with (tmp_path / FILE).open("ab") as file:
        file.write(b'{"event":"being wri')
    found = read_tail(tmp_path, 10, event="e", since=BEGIN)
    assert numbers(found) == [1, 2]


def test_the_tail_is_filtered(tmp_path):
    write_lines(tmp_path, [1], level="debug", model="a")
    write_lines(tmp_path, [2], level="warning", model="b", request_id="r")
    write_lines(tmp_path, [3], level="error", event="f", model="a")
    assert numbers(read_tail(tmp_path, 9, level="warning")) == [2, 3]
    assert numbers(read_tail(tmp_path, 9, level="error")) == [3]
    assert numbers(read_tail(tmp_path, 9, event="f")) == [3]
    assert numbers(read_tail(tmp_path, 9, model="a")) == [1, 3]
    assert numbers(read_tail(tmp_path, 9, request_id="r", model="b")) == [2]
    assert numbers(read_tail(tmp_path, 9, request_id="r", model="a")) == []
    assert numbers(read_tail(tmp_path, 9, since=BEGIN + timedelta(seconds=2))) == [2, 3]


def test_the_tail_of_a_huge_file_is_read_from_its_end(tmp_path, monkeypatch):
    monkeypatch.setattr("lmx_admin_api.log_tail.MAX_READ_BYTES", 1000)
    write_lines(tmp_path, range(100))
    found = numbers(read_tail(tmp_path, 1000))
    assert found == list(range(found[0], 100))
    assert 5 < len(found) < 20
