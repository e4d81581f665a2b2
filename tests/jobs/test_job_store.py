"""The file of jobs: damaged ones are put aside, and only their owner may read it."""

from __future__ import annotations

import stat
from types import SimpleNamespace

import pytest
import structlog

from lmx_kernel.cli.diagnostics import _damaged_databases
from lmx_kernel.config.private_database import damaged_path
from lmx_kernel.interfaces import Job, JobState
from lmx_kernel.jobs.store import FILE, JobStore

DAMAGE = {
    "no database": lambda data: b"this is no database at all" * 400,
    "its pages": lambda data: data[:4096] + b"\xff" * (len(data) - 4096),
    "its end": lambda data: data[: len(data) - 4096],
    "its schema": lambda data: data[:100] + b"\xff" * (len(data) - 100),
}


def job(name):
    return Job(
        id=name,
        kind="count",
        key=name,
        unit="steps",
        spec={},
        state=JobState.DONE,
        created_at=1.0,
        updated_at=1.0,
    )


@pytest.fixture
def path(tmp_path):
    return tmp_path / FILE


def kept(path, *new):
    """Open the file, write jobs, and return all that are in it."""
    store = JobStore(path)
    store.write(new)
    found = [one.id for one in store.read()]
    store.close()
    return found


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_put_aside_and_a_new_one_begun(path, damage):
    assert kept(path, *(job(str(n)) for n in range(100)))
    path.write_bytes(DAMAGE[damage](path.read_bytes()))
    damaged = path.read_bytes()
    with structlog.testing.capture_logs() as lines:
        assert kept(path, job("new")) == ["new"]
    assert [line["event"] for line in lines] == ["database_put_aside"]
    assert damaged_path(path).read_bytes() == damaged
    assert kept(path) == ["new"]


def test_doctor_tells_of_a_damaged_file_until_it_is_deleted(path, tmp_path):
    booted = SimpleNamespace(settings=SimpleNamespace(home=tmp_path))
    assert kept(path, job("a")) == ["a"]
    assert list(_damaged_databases(booted)) == []
    path.write_bytes(b"no database" * 100)
    kept(path)
    [finding] = _damaged_databases(booted)
    assert (finding.is_ok, str(damaged_path(path)) in finding.text) == (False, True)
    damaged_path(path).unlink()
    assert list(_damaged_databases(booted)) == []


def test_only_their_owner_may_read_jobs(path):
    path.parent.mkdir()
    path.touch()
    path.parent.chmod(0o755)  # as an older LMX made them
    path.chmod(0o644)
    store = JobStore(path)
    store.write([job("a")])
    modes = {one.name: stat.S_IMODE(one.stat().st_mode) for one in path.parent.iterdir()}
    store.close()
    assert modes == dict.fromkeys(("jobs.db", "jobs.db-wal", "jobs.db-shm"), 0o600)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
