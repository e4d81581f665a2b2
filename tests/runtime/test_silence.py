"""A worker is given up for doing nothing, never for how long a model, disk or device takes."""

from __future__ import annotations

import os

import pytest
from attrs import define, evolve, field

from lmx_kernel import errors
from lmx_kernel.events import WorkerCrashed
from lmx_kernel.processes.activity import Activity
from lmx_kernel.runtime import measure
from lmx_kernel.runtime.silence import Silence
from lmx_kernel.testing.fake_model import FakeModel
from lmx_kernel.testing.harness import ask, running_kernel, write_fake_models
from lmx_kernel.types import EngineSpec, LoadOptions, ModelCard, TextDelta

TIMEOUT_S = 10.0
HOURS = 4 * 3600
STOPPED = "no sign of life for 10 seconds"


@define
class Worker:
    """A worker that never sends a message by itself, and what it does in each second.

    :ivar pulses: how far a beat says that it has come; a number, or None for a device's. ``...`` is
        no beat at all.
    """

    cpu_s: float = 0.0
    read_bytes: int = 0
    touched_bytes: int = 0
    pulses: object = ...
    pid: int = 1
    frames: int = 0
    beats: int = 0
    pulse: int | None = 0
    done: Activity = field(factory=Activity)

    def measure(self, pid):
        return self.done

    def tick(self, silence):
        done = self.done
        self.done = Activity(
            done.cpu_s + self.cpu_s,
            done.read_bytes + self.read_bytes,
            done.resident_bytes + self.touched_bytes,
        )
        if silence.is_long and self.pulses is not ...:
            self.beats += 1
            self.pulse = None if self.pulses is None else self.pulse + self.pulses


def silence_of(worker, **fields):
    return Silence(TIMEOUT_S, measure=worker.measure, **fields)


def given_up(worker, silence, seconds):
    """Return after how many seconds a worker is given up, and why; None if it is not."""
    for second in range(1, int(seconds / silence.look_s) + 1):
        worker.tick(silence)
        if reason := silence.look(worker):
            return second * silence.look_s, reason
    return None


PROGRESS = {
    "a pulse": Worker(pulses=1),
    "a pulse, while another program has the CPU": Worker(pulses=1, cpu_s=0.0001),
    "a slow disk": Worker(read_bytes=200_000, pulses=0),
    "a load that maps its weights": Worker(touched_bytes=10 << 20),
}


@pytest.mark.parametrize("worker", PROGRESS.values(), ids=PROGRESS)
def test_what_makes_progress_is_never_given_up(worker):
    worker = evolve(worker)
    assert given_up(worker, silence_of(worker), HOURS) is None


NO_LIFE = {
    "stopped": Worker(),
    "waits for a lock": Worker(pulses=0),
    "waits for a lock, and answers pings": Worker(pulses=0, cpu_s=0.0003, read_bytes=10),
    "was swapped out meanwhile": Worker(touched_bytes=-(1 << 20)),
}


@pytest.mark.parametrize("worker", NO_LIFE.values(), ids=NO_LIFE)
def test_what_does_nothing_is_given_up_in_time(worker):
    worker = evolve(worker)
    assert given_up(worker, silence_of(worker, model_bytes=10**12), 60) == (TIMEOUT_S, STOPPED)


WORK = {"a loop": Worker(cpu_s=1.0, pulses=0), "a device": Worker(pulses=None)}


@pytest.mark.parametrize("worker", WORK.values(), ids=WORK)
@pytest.mark.parametrize(
    ("fields", "patience_s"),
    [({}, 120), ({"longest_s": 60.0}, 300), ({"model_bytes": 80 * 10**9}, 400)],
    ids=["at first", "by the longest step", "by the size of the model"],
)
def test_work_without_progress_is_bounded_by_its_pace(worker, fields, patience_s):
    worker = evolve(worker)
    seconds, reason = given_up(worker, silence_of(worker, **fields), HOURS)
    assert (seconds, reason) == (
        patience_s,
        f"no progress for {patience_s} seconds, though it computes",
    )


@pytest.mark.parametrize("worker", WORK.values(), ids=WORK)
def test_steps_of_a_minute_are_healthy_and_allow_slower_ones(worker):
    worker = evolve(worker)
    silence = silence_of(worker)
    for step_s in (60, 60, 280, 600):
        assert given_up(worker, silence, step_s) is None
        worker.frames += 1
        assert silence.look(worker) == ""
        assert silence.longest_s >= step_s - 1


def test_a_worker_that_is_stopped_in_a_long_step_is_given_up_in_time():
    worker = Worker(pulses=1, cpu_s=1.0, read_bytes=1 << 20)
    silence = silence_of(worker)
    assert given_up(worker, silence, 600) is None
    worker.pulses, worker.cpu_s, worker.read_bytes = ..., 0.0, 0
    assert given_up(worker, silence, 60) == (TIMEOUT_S, STOPPED)


def test_beats_of_an_earlier_silence_are_no_sign_of_life():
    for pulses in (1, None):
        worker = Worker(pulses=pulses)
        silence = silence_of(worker)
        given_up(worker, silence, 9)
        worker.frames, worker.pulses = 1, ...
        assert silence.look(worker) == ""
        assert given_up(worker, silence, 60) == (TIMEOUT_S, STOPPED)


def test_a_process_is_measured_from_outside(tmp_path):
    before = Activity.of(os.getpid())
    file = tmp_path / "weights"
    file.write_bytes(b"\1" * (4 << 20))
    kept = file.read_bytes() + bytearray(b"\1") * (32 << 20)
    while (now := Activity.of(os.getpid())).cpu_s <= before.cpu_s:
        sum(range(100_000))
    assert now.resident_bytes - before.resident_bytes > len(kept) // 2
    assert now.read_bytes >= before.read_bytes


def test_a_process_that_is_gone_has_done_nothing():
    assert Activity.of(2**22 + 1) == Activity()


# --- with real workers ---------------------------------------------------------------------------

CONFIG = "[models]\nhang_timeout_s = 3\n"


async def answer(kernel):
    with await kernel.generate(ask("m", max_tokens=5)) as reading:
        return "".join([event.text async for event in reading if isinstance(event, TextDelta)])


@pytest.mark.parametrize("shows", ["pulse", "cpu", "memory", "device"])
async def test_a_step_longer_than_the_timeout_is_no_hang(tmp_path, shows):
    script = FakeModel(long_step_s=6, shows=shows)
    async with running_kernel(tmp_path, {"m": script}, CONFIG) as stage:
        assert len((await answer(stage.kernel)).split()) == 5
        assert not stage.seen(WorkerCrashed)


async def test_a_step_that_does_nothing_is_a_hang(tmp_path):
    script = FakeModel(long_step_s=3600, shows="nothing")
    async with running_kernel(tmp_path, {"m": script}, CONFIG) as stage:
        assert len((await answer(stage.kernel)).split()) == 5
        (crash,) = stage.seen(WorkerCrashed)
        assert crash.reason == "no sign of life for 3 seconds"
        assert crash.failed == 0


@pytest.mark.parametrize("shows", ["cpu", "memory"])
async def test_a_load_that_makes_progress_goes_on_beyond_its_timeout(tmp_path, shows):
    script = FakeModel(long_load_s=6, shows=shows)
    config = "[models]\nload_timeout_s = 3\n"
    async with running_kernel(tmp_path, {"m": script}, config) as stage:
        assert len((await answer(stage.kernel)).split()) == 5
        assert not stage.seen(WorkerCrashed)


async def test_a_load_that_stands_still_is_given_up(tmp_path):
    script = FakeModel(long_load_s=3600, shows="nothing")
    config = "[models]\nload_timeout_s = 1\n"
    async with running_kernel(tmp_path, {"m": script}, config) as stage:
        with pytest.raises(errors.EngineCrashedError, match="no sign of life for 1 seconds"):
            await answer(stage.kernel)
        assert stage.kernel.status().memory_reserved_bytes == 0


@pytest.mark.parametrize(("shows", "long_s", "found"), [("cpu", 4, 7), ("nothing", 3600, None)])
async def test_measuring_may_take_long_as_well(tmp_path, monkeypatch, shows, long_s, found):
    monkeypatch.setattr(measure, "TIMEOUT_S", 2)
    script = FakeModel(memory_bytes=7, long_load_s=long_s, shows=shows)
    write_fake_models(tmp_path, {"m": script})
    card = ModelCard(
        id="m",
        backend="fake",
        path=tmp_path / "m.fake.json",
        format="fake",
        architecture="fake",
        size_bytes=1,
        context_length=64,
    )
    spec = EngineSpec(
        card=card,
        options=LoadOptions(context_length=64, parallel=1, cache_tokens=64),
        engine_module="lmx_kernel.testing.fake_engine",
    )
    assert await measure.measure_memory(spec, {}) == found
