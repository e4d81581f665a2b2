"""Jobs: one for all who want the same, stopped and resumed by id, kept over a restart."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import asynccontextmanager

import pytest
from attrs import define, field, frozen

from lmx_kernel.errors import ConflictError, ModelUnusableError, NotFoundError
from lmx_kernel.jobs.jobs import Jobs


@frozen
class Spec:
    """What to count, and whether that goes wrong."""

    name: str
    fails: str = ""


@define
class Counting:
    """A kind whose jobs wait to be released; they count how often they began."""

    name: str = "count"
    unit: str = "steps"
    spec: type = Spec
    parallel: int = 2
    began: list = field(factory=list)
    discarded: list = field(factory=list)
    go: asyncio.Event = field(factory=asyncio.Event)

    def key(self, spec):
        return spec.name

    async def run(self, spec, report):
        self.began.append(spec.name)
        report(1, 4, "counting")
        await self.go.wait()
        if spec.fails == "typed":
            raise ModelUnusableError("it is broken")
        if spec.fails:
            raise RuntimeError(spec.fails)
        report(4, 4)
        return {"counted": 4}

    async def discard(self, spec):
        self.discarded.append(spec.name)


@define
class Lasting(Counting):
    """Counts whose result stays until it is removed."""

    removed: bool = False

    def result_exists(self, done):
        return not self.removed and done.result == {"counted": 4}


@define
class Clearing(Counting):
    """Takes its time to clear up."""

    clearing: asyncio.Event = field(factory=asyncio.Event)
    cleared: asyncio.Event = field(factory=asyncio.Event)

    async def discard(self, spec):
        self.clearing.set()
        await self.cleared.wait()
        await Counting.discard(self, spec)


@define
class Seen:
    """The events of all jobs, and a way to wait for one."""

    events: list = field(factory=list)
    _changed: asyncio.Event = field(factory=asyncio.Event)

    def __call__(self, event):
        self.events.append(event)
        self._changed.set()

    async def until(self, job_id, state):
        while not any(e.id == job_id and e.state == state for e in self.events):
            self._changed.clear()
            await self._changed.wait()


@pytest.fixture
def seen():
    return Seen()


@asynccontextmanager
async def opened(path, seen, *kinds):
    scans = []

    async def on_done():
        scans.append(1)

    jobs = Jobs(path / "state" / "jobs.db", seen, on_done)
    await jobs.open(kinds)
    jobs.scans = scans
    yield jobs
    await jobs.close()


async def test_a_job_runs_to_its_result_and_the_disk_is_looked_at(tmp_path, seen):
    kind = Counting()
    async with opened(tmp_path, seen, kind) as jobs:
        job = await jobs.start("count", Spec("a"))
        assert job.state in ("queued", "running")
        kind.go.set()
        await seen.until(job.id, "done")
        job = jobs.get(job.id)
        assert (job.result, job.done, job.total, job.unit) == ({"counted": 4}, 4, 4, "steps")
        assert jobs.scans == [1]


async def test_who_wants_the_same_joins_the_job_that_is_open(tmp_path, seen):
    kind = Counting()
    async with opened(tmp_path, seen, kind) as jobs:
        started = await asyncio.gather(*(jobs.start("count", Spec("a")) for _ in range(50)))
        assert len({job.id for job in started}) == 1
        kind.go.set()
        await seen.until(started[0].id, "done")
        assert kind.began == ["a"]


async def test_more_than_may_run_wait_in_line(tmp_path, seen):
    kind = Counting(parallel=1)
    async with opened(tmp_path, seen, kind) as jobs:
        first = await jobs.start("count", Spec("a"))
        second = await jobs.start("count", Spec("b"))
        await seen.until(first.id, "running")
        assert jobs.get(second.id).state == "queued"
        kind.go.set()
        await seen.until(second.id, "done")
        assert kind.began == ["a", "b"]
        assert [job.id for job in jobs.select()] == [second.id, first.id]


async def test_a_paused_job_goes_on_and_a_cancelled_one_is_cleaned_up(tmp_path, seen):
    kind = Counting()
    async with opened(tmp_path, seen, kind) as jobs:
        job = await jobs.start("count", Spec("a"))
        await seen.until(job.id, "running")
        assert (await jobs.pause(job.id)).state == "paused"
        assert kind.discarded == []
        assert (await jobs.start("count", Spec("a"))).id == job.id, "asked again, it goes on"
        assert (await jobs.pause(job.id)).state == "paused"
        assert (await jobs.cancel(job.id)).state == "cancelled"
        assert (await jobs.cancel(job.id)).state == "cancelled"
        assert kind.discarded == ["a"]
        with pytest.raises(ConflictError, match="cancelled"):
            await jobs.resume(job.id)


@pytest.mark.parametrize(
    ("fails", "code", "text"),
    [("typed", "model_unusable", "it is broken"), ("oops", "internal_error", "RuntimeError: oops")],
)
async def test_a_failed_job_says_why_and_can_be_tried_again(tmp_path, seen, fails, code, text):
    kind = Counting()
    async with opened(tmp_path, seen, kind) as jobs:
        job = await jobs.start("count", Spec("a", fails))
        kind.go.set()
        await seen.until(job.id, "failed")
        error = jobs.get(job.id).error
        assert (error.code, error.message) == (code, text)
        await jobs.resume(job.id)
        assert jobs.get(job.id).error is None


async def test_jobs_survive_a_restart(tmp_path, seen):
    kind = Counting()
    async with opened(tmp_path, seen, kind) as jobs:
        running = await jobs.start("count", Spec("a"))
        paused = await jobs.start("count", Spec("b"))
        await seen.until(running.id, "running")
        await seen.until(paused.id, "running")
        await jobs.pause(paused.id)
    again = Seen()
    async with opened(tmp_path, again, kind) as jobs:
        await again.until(running.id, "running")
        assert jobs.get(paused.id).state == "paused"
        kind.go.set()
        await again.until(running.id, "done")
        assert kind.began == ["a", "b", "a"]


async def test_a_job_without_its_plugin_waits_for_it(tmp_path, seen):
    async with opened(tmp_path, seen, Counting()) as jobs:
        job = await jobs.start("count", Spec("a"))
    kind = Counting()
    async with opened(tmp_path, seen, Counting(name="other")) as jobs:
        assert jobs.get(job.id).state == "queued"
        with pytest.raises(NotFoundError, match="no active plugin"):
            await jobs.start("count", Spec("b"))
        kind.go.set()
        await jobs.open([kind])
        await seen.until(job.id, "done")


async def test_unknown_and_ended_jobs_are_told(tmp_path, seen):
    kind = Counting()
    async with opened(tmp_path, seen, kind) as jobs:
        with pytest.raises(NotFoundError, match="no job nothing"):
            jobs.get("nothing")
        kind.go.set()
        job = await jobs.start("count", Spec("a"))
        await seen.until(job.id, "done")
        for change in (jobs.pause, jobs.cancel, jobs.resume):
            with pytest.raises(ConflictError, match="done"):
                await change(job.id)


# --- several jobs for the same -------------------------------------------------------------------


async def test_a_cancelled_job_leaves_alone_what_another_works_on(tmp_path, seen):
    kind = Counting()
    async with opened(tmp_path, seen, kind) as jobs:
        old = await failed(jobs, seen, kind)
        new = await jobs.start("count", Spec("a"))
        await jobs.pause(new.id)
        assert (await jobs.cancel(old.id)).state == "cancelled"
        assert kind.discarded == []
        await jobs.cancel(new.id)
        assert kind.discarded == ["a"]


async def test_a_failed_job_is_not_resumed_beside_another_for_the_same(tmp_path, seen):
    kind = Counting()
    async with opened(tmp_path, seen, kind) as jobs:
        old = await failed(jobs, seen, kind)
        new = await jobs.start("count", Spec("a"))
        assert (await jobs.resume(old.id)).id == new.id
        await jobs.pause(new.id)
        resumed = await jobs.resume(old.id)
        assert resumed.id == new.id
        assert resumed.state in ("queued", "running")
        assert jobs.get(old.id).state == "failed"


async def test_a_job_begins_only_when_the_one_before_it_has_cleared_up(tmp_path, seen):
    kind = Clearing()
    async with opened(tmp_path, seen, kind) as jobs:
        old = await jobs.start("count", Spec("a"))
        await seen.until(old.id, "running")
        cancelling = asyncio.create_task(jobs.cancel(old.id))
        await kind.clearing.wait()
        new = await jobs.start("count", Spec("a"))
        other = await jobs.start("count", Spec("b"))
        await seen.until(other.id, "running")
        assert jobs.get(new.id).state == "queued"
        kind.cleared.set()
        await cancelling
        await seen.until(new.id, "running")
        assert kind.discarded == ["a"]


async def test_what_was_made_is_not_made_again_while_it_is_there(tmp_path, seen):
    kind = Lasting()
    kind.go.set()
    async with opened(tmp_path, seen, kind) as jobs:
        done = await jobs.start("count", Spec("a"))
        await seen.until(done.id, "done")
        assert await jobs.start("count", Spec("a")) == jobs.get(done.id)
        other = await jobs.start("count", Spec("b"))
        kind.removed = True
        again = await jobs.start("count", Spec("a"))
        await seen.until(other.id, "done")
        await seen.until(again.id, "done")
        assert kind.began == ["a", "b", "a"]


async def failed(jobs, seen, kind):
    """Return a job that failed; the next one for the same waits."""
    kind.go.set()
    job = await jobs.start("count", Spec("a", "typed"))
    await seen.until(job.id, "failed")
    kind.go.clear()
    return job


# --- kinds that come and go ----------------------------------------------------------------------


async def test_a_kind_that_is_not_offered_any_more_starts_nothing(tmp_path, seen):
    kind = Counting(parallel=1)
    async with opened(tmp_path, seen, kind) as jobs:
        running = await jobs.start("count", Spec("a"))
        waiting = await jobs.start("count", Spec("b"))
        await seen.until(running.id, "running")
        await jobs.open([])
        with pytest.raises(NotFoundError, match="no active plugin"):
            await jobs.start("count", Spec("c"))
        kind.go.set()
        await seen.until(running.id, "done")
        assert jobs.get(waiting.id).state == "queued"
        await jobs.open([kind])
        await seen.until(waiting.id, "done")


async def test_what_runs_is_cleared_up_by_the_kind_that_began_it(tmp_path, seen):
    kind = Counting()
    async with opened(tmp_path, seen, kind) as jobs:
        job = await jobs.start("count", Spec("a"))
        await seen.until(job.id, "running")
        await jobs.open([])
        await jobs.cancel(job.id)
        assert kind.discarded == ["a"]


@frozen
class NewSpec:
    """What a later version of the plugin wants to be told."""

    title: str


async def test_a_job_that_its_kind_does_not_understand_any_more_can_be_cancelled(tmp_path, seen):
    async with opened(tmp_path, seen, Counting()) as jobs:
        job = await jobs.start("count", Spec("a"))
        await jobs.pause(job.id)
        await jobs.open([Counting(spec=NewSpec)])
        assert (await jobs.cancel(job.id)).state == "cancelled"


# --- what is kept --------------------------------------------------------------------------------


async def test_a_row_that_cannot_be_read_is_passed_over(tmp_path, seen):
    kind = Counting()
    async with opened(tmp_path, seen, kind) as jobs:
        job = await jobs.start("count", Spec("a"))
    with sqlite3.connect(tmp_path / "state" / "jobs.db") as database:
        rows = [("w", "{}"), ("x", "{"), ("y", 7), ("z", b"\xff")]
        database.executemany("INSERT INTO jobs VALUES (?, 1, ?)", rows)
        database.execute("INSERT INTO jobs VALUES ('v', 1, CAST(x'22ff22' AS TEXT))")
    database.close()
    kind.go.set()
    async with opened(tmp_path, seen, kind) as jobs:
        await seen.until(job.id, "done")
        assert [one.id for one in jobs.select()] == [job.id]


async def test_the_jobs_that_ended_first_are_forgotten(tmp_path, seen, monkeypatch):
    monkeypatch.setattr("lmx_kernel.jobs.table.KEPT", 2)
    kind = Counting()
    async with opened(tmp_path, seen, kind) as jobs:
        first, *others = [await jobs.start("count", Spec(name)) for name in "abcd"]
        await jobs.pause(first.id)
        kind.go.set()
        for job in others:
            await seen.until(job.id, "done")
        assert len(jobs.select()) == 3
        assert len(jobs.select(limit=2)) == 2
        assert (await jobs.cancel(first.id)).state == "cancelled"
        kept = [job.id for job in jobs.select()]
        assert kept == [others[-1].id, first.id]
    async with opened(tmp_path, seen, kind) as jobs:
        assert [job.id for job in jobs.select()] == kept
