"""What workers really take is watched, and memory never runs out under the machine."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest
from attrs import define, field

from lmx_kernel import errors
from lmx_kernel.events import MemoryPressed, ModelLoaded, ModelUnloaded, WorkerCrashed
from lmx_kernel.memory.budget import MemorySettings
from lmx_kernel.memory.guard import Guard, Level, MemorySample, level_of, worst
from lmx_kernel.testing.fake_model import FakeModel
from lmx_kernel.testing.harness import ask, running_kernel
from lmx_kernel.types import LoadOverrides, TextDelta

MIB = 1024**2


@define
class Worker:
    """A worker as the guard sees it; what is done to it is noted."""

    model: str
    memory_bytes: int
    observed_bytes: int
    pid: int | None = 1
    done: list = field(factory=list)

    def observe(self, taken_bytes):
        self.observed_bytes = taken_bytes

    def hold(self, reason):
        self.done.append(("hold", reason))

    def trim(self):
        self.done.append("trim")

    def kill(self, reason):
        self.done.append(("kill", reason))


def reading(used, free=500, reserved=0):
    return MemorySample(
        used_bytes=used,
        reserved_bytes=reserved,
        budget_bytes=1000,
        free_bytes=free,
        machine_bytes=2000,
    )


@pytest.mark.parametrize(
    ("seen", "level"),
    [
        (reading(900), Level.NORMAL),
        (reading(960), Level.SOFT),
        (reading(960, reserved=970), Level.NORMAL),
        (reading(980, reserved=970), Level.SOFT),
        (reading(1001, reserved=990), Level.HARD),
        (reading(1000), Level.SOFT),
        (reading(1001), Level.HARD),
        (reading(10, free=79), Level.SOFT),
        (reading(10, free=39), Level.HARD),
    ],
)
def test_levels_follow_the_budget_and_what_the_machine_has_left(seen, level):
    assert level_of(seen, MemorySettings()) is level


def test_the_worker_that_goes_is_the_one_furthest_beyond_what_it_asked_for():
    honest, greedy = Worker("honest", 900, 910), Worker("greedy", 100, 300)
    gone = Worker("gone", 0, 999, pid=None)
    assert worst([honest, greedy, gone]) is greedy
    assert worst([gone]) is None


def test_each_level_does_its_part_and_is_told_once():
    worker, told = Worker("w", 100, 100), []
    guard = Guard(lambda: [worker], MemorySettings, lambda: 1000, told.append)
    guard.act(reading(100))
    assert (worker.done, told) == ([("hold", "")], [])
    guard.act(reading(960))
    guard.act(reading(970))
    scarce = ("hold", "memory is scarce")
    assert worker.done[1:] == [scarce, "trim", scarce]
    guard.act(reading(1100))
    assert ("kill", "memory ran out: it took 0 MiB") in worker.done
    guard.act(reading(100))
    assert worker.done[-1] == ("hold", "")
    assert [event.level for event in told] == ["soft", "hard", "ease"]
    assert [event.worker for event in told] == ["", "w", ""]


@asynccontextmanager
async def watched(stage):
    """Let the guard and the house keeping go on, as in the daemon."""
    assembly = stage.assembly
    works = (assembly.guard.watch(), assembly.lifecycle.run_maintenance())
    tasks = [asyncio.ensure_future(work) for work in works]
    yield
    for task in tasks:
        task.cancel()


async def test_a_leaking_worker_is_ended_and_its_answer_goes_on(tmp_path):
    script = FakeModel(tokens_per_s=100, leak_bytes=8 * MIB, leak_tokens=60)
    config = f"[memory]\nbudget_bytes = {300 * MIB}\nsoft_share = 0.9999"  # or a trim ends the leak
    async with running_kernel(tmp_path, {"m": script}, config) as stage, watched(stage):
        with await stage.kernel.generate(ask("m", max_tokens=300)) as answer:
            events = [event async for event in answer]
        [crash] = stage.seen(WorkerCrashed)
        assert "memory ran out" in crash.reason
        assert crash.resumed == 1
        numbers = "".join(e.text for e in events if isinstance(e, TextDelta)).split()
        assert len(numbers) == 300
        assert [int(n) for n in numbers] == [(int(numbers[0]) + n) % 4096 for n in range(300)]
        assert "m" in {event.worker for event in stage.seen(MemoryPressed)}


async def test_a_worker_that_balloons_while_it_loads_is_ended_and_the_load_refused(tmp_path):
    script = FakeModel(allocate_bytes=400 * MIB, load_s=30)
    config = f"[memory]\nbudget_bytes = {200 * MIB}"
    async with running_kernel(tmp_path, {"m": script}, config) as stage, watched(stage):
        with pytest.raises(errors.EngineCrashedError, match="memory ran out"):
            await stage.kernel.load("m", LoadOverrides())
        assert stage.kernel.status().memory_reserved_bytes == 0


async def test_nobody_new_starts_while_memory_is_scarce(tmp_path):
    async with running_kernel(tmp_path, {"m": FakeModel()}) as stage:
        await stage.kernel.load("m", LoadOverrides())
        stage.instance("m").hold("memory is scarce")
        with await stage.kernel.generate(ask("m", max_tokens=1)) as answer:
            admitted = await answer.next()
            assert admitted.prompt_tokens
            assert await answer.next(timeout_s=0.1) is None
            stage.instance("m").hold("")
            assert await answer.next() is not None


async def test_a_worker_that_grew_is_loaded_anew_when_nobody_uses_it(tmp_path):
    script = FakeModel(leak_bytes=4 * MIB)
    async with running_kernel(tmp_path, {"m": script}) as stage, watched(stage):
        await stage.kernel.load("m", LoadOverrides())
        await stage.assembly.guard.look()
        with await stage.kernel.generate(ask("m", max_tokens=40)) as answer:
            async for _ in answer:
                pass
        await stage.until(ModelLoaded, 2)
        [unloaded] = stage.seen(ModelUnloaded)
        assert unloaded.reason == "recycled"
