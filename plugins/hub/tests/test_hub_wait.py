"""A network or a hub that is away is waited for, for hours, and everybody is told."""

from __future__ import annotations

import asyncio
import random

import pytest
from lmx_hub.kind import Downloads
from lmx_hub.settings import HubSettings

from lmx_kernel import errors
from lmx_kernel.jobs.jobs import Jobs

WEIGHTS = random.Random(3).randbytes(300_000)
DAY = 86400


@pytest.fixture
def pauses(monkeypatch):
    """What was waited, in seconds; ``pauses.then[n]`` is called in the n-th pause."""

    class Pauses(list):
        then: dict = {}  # noqa: RUF012

        def __call__(self, seconds):
            self.append(seconds)
            self.then.get(len(self), lambda: None)()

    pauses = Pauses()
    pauses.then = {}
    monkeypatch.setattr("lmx_hub.hub.sleep", pauses)
    return pauses


@pytest.fixture
def told():
    return []


@pytest.fixture
def report(told):
    return lambda done, total=None, note="": told.append((done, total, note))


def cut(end):
    return lambda handler, file: handler.serve(file, end=end)


def drop(handler, file):
    handler.close_connection = True


def away(handler, file):
    handler.refuse(503)


def test_hours_without_network_are_waited_through(hub, root, pull, pauses, told, report):
    hub.put("org/name", {"model.safetensors": WEIGHTS})
    hub.errors["org/name"] = drop
    pauses.then[500] = hub.errors.clear
    pull(report=report, wait_s=DAY)
    assert (root / "org/name/model.safetensors").read_bytes() == WEIGHTS
    assert len(pauses) == 500
    assert sum(pauses) > 8 * 3600
    assert pauses[:8] == [0.5, 1, 2, 4, 8, 16, 32, 60]
    assert set(pauses[8:]) == {60}
    waiting = "waiting for the network: the hub cannot be reached ("
    assert told[0][:2] == (0, None)
    assert told[0][2].startswith(waiting)
    assert told[0][2].endswith("; next try in 0.5 s")
    assert told[-1] == (len(WEIGHTS), len(WEIGHTS), "")


def test_no_network_in_the_midst_of_a_file_costs_no_byte(hub, root, pull, pauses, told, report):
    hub.put("org/name", {"model.safetensors": WEIGHTS})
    file = hub.repos["org/name"]["model.safetensors"]
    file.faults.extend([cut(200_000), *[drop] * 40, away, cut(50_000), *[drop] * 40])
    pull(report=report, wait_s=DAY)
    assert (root / "org/name/model.safetensors").read_bytes() == WEIGHTS
    assert hub.sent == len(WEIGHTS)
    assert sum(pauses) > 3600
    waiting = [(done, total) for done, total, note in told if note.startswith("waiting for")]
    assert set(waiting) == {(200_000, len(WEIGHTS)), (250_000, len(WEIGHTS))}
    assert any("hub: the hub answers with status 503" in note for _, _, note in told)


def test_waiting_ends_with_the_reason(hub, pull, pauses):
    hub.errors["org/name"] = drop
    with pytest.raises(errors.UnavailableError, match="cannot be reached") as caught:
        pull(wait_s=DAY)
    assert caught.value.retryable
    assert DAY - 60 <= sum(pauses) <= DAY


def test_each_byte_that_comes_gives_all_the_time_again(hub, root, pull, pauses):
    hub.put("org/name", {"model.safetensors": WEIGHTS})
    file = hub.repos["org/name"]["model.safetensors"]
    for _ in range(5):
        file.faults.extend([cut(20_000), *[drop] * 8])
    pull(wait_s=200)
    assert (root / "org/name/model.safetensors").read_bytes() == WEIGHTS
    assert sum(pauses) > 600


REFUSED = {
    "no such model": (404, errors.NotFoundError),
    "no permission": (401, errors.ForbiddenError),
    "forbidden": (403, errors.ForbiddenError),
    "another refusal": (418, errors.UnavailableError),
}


@pytest.mark.parametrize(("status", "error"), REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("place", ["listing", "file"])
def test_a_refusal_is_not_waited_for(hub, pull, pauses, status, error, place):
    code = {404: "RepoNotFound" if place == "listing" else "EntryNotFound"}.get(status, "")
    refuse = lambda handler, _: handler.refuse(status, code)  # noqa: E731
    hub.put("org/name", {"model.safetensors": WEIGHTS})
    if place == "listing":
        hub.errors["org/name"] = refuse
    else:
        hub.repos["org/name"]["model.safetensors"].always = refuse
    with pytest.raises(error):
        pull(wait_s=DAY)
    assert pauses == []


def test_what_is_not_what_was_listed_is_not_waited_for(hub, pull, pauses, remote):
    shorter = {"told": {"size": len(WEIGHTS) + 1}}
    other = {"told": {"sha256": "0" * 64}}
    for lie in (shorter, other):
        hub.put("org/name", {"model.safetensors": remote(WEIGHTS, **lie)})
        with pytest.raises(errors.UnavailableError, match="came damaged 3 times"):
            pull(wait_s=DAY)
    assert pauses == []


def test_a_full_disk_is_not_waited_for(hub, pull, pauses):
    hub.put("org/name", {"model.safetensors": WEIGHTS})
    with pytest.raises(errors.DiskFullError):
        pull(wait_s=DAY, reserve_bytes=1 << 62)
    assert pauses == []


# --- as a job, with the child process ------------------------------------------------------------


async def test_a_job_waits_over_a_restart_says_so_and_goes_on(hub, root, download, tmp_path):
    """Its bytes are kept, and it goes on by itself when the hub is there again."""
    changes = asyncio.Queue()

    async def nothing():
        """Nobody looks at the disk."""

    async def until(reached):
        while not reached(event := await changes.get()):
            pass
        return event

    async def opened():
        jobs = Jobs(tmp_path / "jobs.db", changes.put_nowait, nothing)
        await jobs.open([Downloads(HubSettings(folder=root, endpoint=hub.url, reserve_bytes=0))])
        return jobs

    def waits(event):
        return event.note.startswith("waiting for the network")

    hub.put("org/name", {"model.safetensors": WEIGHTS})
    file = hub.repos["org/name"]["model.safetensors"]
    file.faults.append(cut(200_000))
    file.always = drop
    jobs = await opened()
    job = await jobs.start("download", download("org/name"))
    event = await until(waits)
    assert event.state == "running"
    assert jobs.get(job.id).note == event.note
    await jobs.close()

    jobs = await opened()
    await until(waits)
    assert jobs.get(job.id).state == "running"
    file.always = None
    done = await until(lambda event: event.state in ("done", "failed"))
    assert done.state == "done"
    assert (root / "org/name/model.safetensors").read_bytes() == WEIGHTS
    assert hub.sent == len(WEIGHTS)
    await jobs.close()


async def test_a_job_that_waits_can_be_cancelled(hub, root, download, tmp_path):
    hub.put("org/name", {"model.safetensors": WEIGHTS})
    hub.repos["org/name"]["model.safetensors"].always = drop
    waits = asyncio.Event()

    def see(event):
        if event.note.startswith("waiting for the network"):
            waits.set()

    async def nothing():
        """Nobody looks at the disk."""

    jobs = Jobs(tmp_path / "jobs.db", see, nothing)
    await jobs.open([Downloads(HubSettings(folder=root, endpoint=hub.url, reserve_bytes=0))])
    job = await jobs.start("download", download("org/name"))
    await waits.wait()
    assert (await jobs.cancel(job.id)).state == "cancelled"
    assert list(root.iterdir()) == []
    await jobs.close()
