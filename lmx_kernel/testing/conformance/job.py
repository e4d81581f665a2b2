"""What LMX expects of a kind of job."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import attrs
import msgspec
import pytest
from attrs import define, field

from lmx_kernel.events import JobChanged, KernelEvent
from lmx_kernel.interfaces import JobKind, JobState
from lmx_kernel.jobs.jobs import Jobs
from lmx_kernel.kernel.assembly import assemble
from lmx_kernel.kernel.boot import Booted
from lmx_kernel.testing.conformance.plugin import PluginConformance, check_active, check_name

WAIT_S = 20.0
MOST_BLOCKED_S = 1.0


@define
class Told:
    """What a job reports; ``moved`` is set when something is done that is not all."""

    lines: list[tuple[float, float | None, str]] = field(factory=list)
    moved: asyncio.Event = field(factory=asyncio.Event)

    def __call__(self, done: float, total: float | None = None, note: str = "") -> None:
        self.lines.append((done, total, note))
        if 0 < done < (total or float("inf")):
            self.moved.set()


class JobConformance(PluginConformance):
    """For a plugin with the hook ``lmx_job_kinds``. The jobs of :meth:`spec` and
    :meth:`other_spec` take a second at most, and report before they are done.

    :cvar steps: whether each run reports the same figures, and one that was stopped goes on with
        the next.
    """

    steps: ClassVar[bool] = False

    def spec(self, folder: Path) -> Any:
        """Return the description of a job.

        :param folder: an empty folder for the test's own files.
        """
        raise NotImplementedError

    def other_spec(self, folder: Path) -> Any:
        """Return the description of a job that does something else."""
        raise NotImplementedError

    def result(self, folder: Path) -> Any:
        """Return what the job of :meth:`spec` returns; None if that is not known beforehand."""
        return None

    def clear(self, folder: Path) -> None:
        """Remove what jobs that are done have left, so that they can be done again."""

    @pytest.fixture
    def make_kind(self, booted: Booted) -> Callable[[], JobKind]:
        """Makes the kind anew, as after a restart of the daemon."""
        hook: Any = dict(booted.plugins.callers("lmx_job_kinds", "kernel"))[self.module]
        kernel = assemble(booted).kernel if "kernel" in hook.takes else None

        def make() -> JobKind:
            kind: JobKind = next(iter(hook(kernel)))
            return kind

        return make

    @pytest.fixture
    def kind(self, make_kind: Callable[[], JobKind]) -> JobKind:
        """The kind that is tried: the first of the plugin."""
        return make_kind()

    def test_it_says_what_it_is(self, booted: Booted, kind: JobKind) -> None:
        check_active(booted.plugins, self.module)
        check_name(kind.name)
        check_name(kind.unit)
        assert isinstance(kind.parallel, int)
        assert kind.parallel >= 1
        assert attrs.has(kind.spec), "spec is an attrs class"

    def test_a_description_survives_json(self, kind: JobKind, folder: Path) -> None:
        for spec in (self.spec(folder), self.other_spec(folder)):
            assert isinstance(spec, kind.spec)
            assert restored(kind, spec) == spec

    def test_what_does_the_same_has_the_same_key(self, kind: JobKind, folder: Path) -> None:
        spec, other = self.spec(folder), self.other_spec(folder)
        key = kind.key(spec)
        assert isinstance(key, str)
        assert key
        assert kind.key(restored(kind, spec)) == kind.key(spec) == key
        assert kind.key(other) != key

    async def test_it_reports_and_returns(self, kind: JobKind, folder: Path) -> None:
        told = Told()
        result = await asyncio.wait_for(kind.run(self.spec(folder), told), WAIT_S)
        check_result(result)
        assert told.lines, "it reports nothing"
        check_reports(told.lines)
        assert told.moved.is_set(), "it reports only when all is done"
        assert self.result(folder) in (None, dict(result))

    async def test_it_can_be_done_again(self, kind: JobKind, folder: Path) -> None:
        """What is kept for a restart is gone when a job is done."""
        told = [Told(), Told()]
        for one in told:
            await asyncio.wait_for(kind.run(self.spec(folder), one), WAIT_S)
            self.clear(folder)
        assert told[1].moved.is_set(), "it does nothing the second time"
        assert not self.steps or told[0].lines == told[1].lines

    async def test_it_leaves_the_loop_to_others(self, kind: JobKind, folder: Path) -> None:
        loop, longest_s = asyncio.get_running_loop(), 0.0
        task = asyncio.ensure_future(kind.run(self.spec(folder), Told()))
        turns = 0
        while not task.done():
            before_s = loop.time()
            await asyncio.sleep(0)
            longest_s = max(longest_s, loop.time() - before_s)
            turns += 1
        await task
        assert turns > 2, "it never waits for anything"
        assert longest_s < MOST_BLOCKED_S, f"it blocks the daemon for {longest_s:.1f} s"

    async def test_a_cancelled_one_leaves_nothing(
        self, kind: JobKind, folder: Path, home: Path
    ) -> None:
        spec = self.spec(folder)
        before = everything_below(folder, home)
        await stop_midway(kind, spec)
        await kind.discard(spec)
        assert everything_below(folder, home) == before
        await kind.discard(spec)
        await kind.discard(self.other_spec(folder))
        assert everything_below(folder, home) == before

    async def test_it_continues_after_a_stop(
        self, make_kind: Callable[[], JobKind], folder: Path
    ) -> None:
        """As after a kill of the daemon: another object, the description from JSON, and another
        job that was done meanwhile.
        """
        straight = Told()
        whole = await make_kind().run(self.spec(folder), straight)
        await make_kind().discard(self.spec(folder))
        self.clear(folder)
        kind = make_kind()
        before = await stop_midway(kind, self.spec(folder))
        await make_kind().run(self.other_spec(folder), Told())
        later, told = make_kind(), Told()
        again = await asyncio.wait_for(later.run(restored(later, self.spec(folder)), told), WAIT_S)
        assert msgspec.to_builtins(dict(again)) == msgspec.to_builtins(dict(whole))
        check_reports(told.lines)
        if self.steps:
            assert before.lines + told.lines == straight.lines, "it does not go on where it was"

    async def test_two_at_once_do_not_mix(
        self, make_kind: Callable[[], JobKind], folder: Path
    ) -> None:
        kind, specs = make_kind(), (self.spec(folder), self.other_spec(folder))
        alone = [dict(await make_kind().run(spec, Told())) for spec in specs]
        for spec in specs:
            await make_kind().discard(spec)
        self.clear(folder)
        told = [Told(), Told()]
        both = await asyncio.gather(*map(kind.run, specs, told))
        assert [dict(one) for one in both] == alone
        for one in told:
            check_reports(one.lines)

    async def test_it_is_served(
        self, make_kind: Callable[[], JobKind], folder: Path, home: Path
    ) -> None:
        """A second call joins the first, and a restart of the daemon goes on with it."""
        changes: asyncio.Queue[KernelEvent] = asyncio.Queue()
        jobs = Jobs(home / "jobs.db", changes.put_nowait, _nothing)
        kind = make_kind()
        await jobs.open([kind])
        job = await jobs.start(kind.name, self.spec(folder))
        assert (await jobs.start(kind.name, self.spec(folder))).id == job.id
        assert (await jobs.start(kind.name, self.other_spec(folder))).id != job.id
        await jobs.close()
        jobs = Jobs(home / "jobs.db", changes.put_nowait, _nothing)
        await jobs.open([make_kind()])
        async with asyncio.timeout(WAIT_S):
            while any(one.state in (JobState.QUEUED, JobState.RUNNING) for one in jobs.select()):
                assert isinstance(await changes.get(), JobChanged)
        ended = jobs.select()
        await jobs.close()
        assert [one.state for one in ended] == [JobState.DONE] * 2, [one.error for one in ended]
        for one in ended:
            check_result(one.result or {})


async def _nothing() -> None:
    """Called when a job is done."""


def restored(kind: JobKind, spec: Any) -> Any:
    """Return a description as it comes back from the disk."""
    return msgspec.convert(msgspec.json.decode(msgspec.json.encode(spec)), kind.spec)


def everything_below(*folders: Path) -> dict[str, bytes | None]:
    """Return all files of folders with their contents, and the folders in them."""
    found = [path for folder in folders for path in sorted(folder.rglob("*"))]
    found = [path for path in found if not path.name.startswith("jobs.db")]
    return {str(path): path.read_bytes() if path.is_file() else None for path in found}


async def stop_midway(kind: JobKind, spec: Any) -> Told:
    """Run a job until something is done, cancel it there, and return what it told."""
    told = Told()
    task = asyncio.ensure_future(kind.run(spec, told))
    moved = asyncio.ensure_future(told.moved.wait())
    await asyncio.wait((task, moved), timeout=WAIT_S, return_when=asyncio.FIRST_COMPLETED)
    moved.cancel()
    assert not task.done(), "it was done before it reported that something is done"
    task.cancel()
    done, _ = await asyncio.wait((task,), timeout=WAIT_S)
    assert done, "it goes on after it was cancelled"
    assert task.cancelled(), "it passes over its cancellation"
    return told


def check_result(result: Mapping[str, Any]) -> None:
    """Check that a result is an object of JSON."""
    assert isinstance(result, Mapping), f"run() returned a {type(result).__name__}"
    plain = dict(result)
    assert msgspec.json.decode(msgspec.json.encode(plain)) == msgspec.to_builtins(plain)


def check_reports(lines: list[tuple[float, float | None, str]]) -> None:
    """Check that progress grows, up to the total."""
    done = [line[0] for line in lines]
    assert done == sorted(done), f"progress goes back: {done[:20]}"
    totals = [total for _, total, _ in lines if total is not None]
    assert all(isinstance(note, str) for *_, note in lines)
    assert min(done, default=0) >= 0
    if totals:
        assert len(set(totals)) == 1, f"the total changes: {sorted(set(totals))}"
        assert totals[0] > 0
        assert done[-1] == totals[-1], f"it ends at {done[-1]} of {totals[-1]}"
