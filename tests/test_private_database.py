"""Private databases: nobody else reads them, and a damaged one stops nothing."""

from __future__ import annotations

import sqlite3
import stat

import pytest

from lmx_kernel.config.private_database import open_database
from lmx_kernel.interfaces import Job
from lmx_kernel.jobs.store import JobStore

SCHEMA = "CREATE TABLE IF NOT EXISTS words (word TEXT)"


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("is_old", [False, True])
def test_only_the_owner_can_read_it(tmp_path, is_old):
    path = tmp_path / "state" / "words.db"
    if is_old:  # of a version that made files which others could read
        path.parent.mkdir(mode=0o755)
        path.touch(mode=0o644)
    database = open_database(path, SCHEMA)
    database.execute("INSERT INTO words VALUES ('hi')")
    assert mode(path.parent) == 0o700
    assert {file.name: mode(file) for file in path.parent.iterdir()} == {
        "words.db": 0o600,
        "words.db-wal": 0o600,
        "words.db-shm": 0o600,
    }
    database.close()
    assert open_database(path, SCHEMA).execute("SELECT word FROM words").fetchall() == [("hi",)]


def test_a_damaged_one_is_put_aside(tmp_path):
    path = tmp_path / "words.db"
    path.write_bytes(b"damaged" * 1000)
    assert open_database(path, SCHEMA).execute("SELECT * FROM words").fetchall() == []
    (aside,) = tmp_path.glob("words.db.damaged")
    assert aside.read_bytes() == b"damaged" * 1000


def test_what_is_not_damaged_is_not_put_aside(tmp_path):
    path = tmp_path / "words.db"
    open_database(path, SCHEMA).close()
    with pytest.raises(sqlite3.OperationalError):
        open_database(path, "CREATE TABLE words (word TEXT)")  # there is one
    assert [file.name for file in tmp_path.iterdir()] == ["words.db"]


def test_jobs_are_kept_again_after_their_file_was_damaged(tmp_path):
    path = tmp_path / "jobs.db"
    path.write_bytes(b"damaged" * 1000)
    job = Job(id="j", kind="k", key="", unit="", spec={}, created_at=1.0, updated_at=1.0)
    store = JobStore(path)
    store.write([job])
    store.close()
    assert JobStore(path).read() == [job]
