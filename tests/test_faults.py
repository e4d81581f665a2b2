"""Faults in numbers (FAULTS.md): few in a normal run, the full count behind the marker `full`."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import signal
from contextlib import asynccontextmanager

import httpx2 as httpx
import psutil
import pytest

from lmx_kernel import errors
from lmx_kernel.events import ModelLoaded, WorkerCrashed
from lmx_kernel.models.headers import READER
from lmx_kernel.testing.fake_model import FakeModel
from lmx_kernel.testing.harness import (
    ask,
    running_daemon,
    running_kernel,
    worker_processes,
    write_config,
    write_fake_models,
)
from lmx_kernel.types import (
    Admitted,
    LoadOverrides,
    Priority,
    PromptProgress,
    Terms,
    TextDelta,
)

LOW, HIGH = 0, 2  # numbers of callers


@pytest.fixture(autouse=True)
def no_other_children():
    """This process has no children from the tests before, so that all are workers."""
    READER.end_idle()


def counts(*few_and_full):
    few, full = few_and_full
    return pytest.mark.parametrize("count", [few, pytest.param(full, marks=pytest.mark.full)])


def caller(number):
    """Return the fields of a request of one of six callers, two of each priority."""
    priority = [*Priority][number % 3]
    name, terms = f"{priority} {number % 2}", Terms(priority=priority)
    return {"caller": name, "priority": priority, "terms": terms}


async def generate(kernel, model, text, tokens, **fields):
    """Let a model answer, and check that no token is lost or doubled."""
    await read(await kernel.generate(ask(model, text, max_tokens=tokens, **fields)))


@asynccontextmanager
async def flood(kernel, models, text):
    """Keep requests of high priority open, two for each of these models."""

    async def repeat(model, number):
        for again in itertools.count(1):
            await generate(kernel, model, f"{text} {number} {again}", 20, **caller(HIGH))

    tasks = [asyncio.ensure_future(repeat(model, n)) for model in models for n in range(2)]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(one, asyncio.CancelledError) for one in ended), "none of them failed"


async def read(answer):
    """Read an answer to its end, and check that no token is lost or doubled."""
    numbers = [[] for _ in range(answer.request.candidates)]
    with answer:
        async for event in answer:
            if isinstance(event, TextDelta):
                numbers[event.candidate] += [int(word) for word in event.text.split()]
    for one in numbers:
        assert one == [(one[0] + n) % 4096 for n in range(answer.request.max_tokens)]


async def start_together(stage, model, answers):
    """Let requests run that were asked while their model was held, all at once."""
    for answer in answers:
        assert isinstance(await answer.next(), Admitted)
    stage.instance(model).hold("")
    assert stage.instance(model).requests.running == len(answers)
    assert isinstance(await answers[0].next(), PromptProgress)  # the engine is at work


@counts(3, 50)
@pytest.mark.timeout(600)
async def test_1_eight_streams_survive_each_abort(tmp_path, count):
    script = FakeModel(tokens_per_s=200)
    async with running_kernel(tmp_path, {"m": script}) as stage:
        await generate(stage.kernel, "m", "warm", 1)
        for _ in range(count):
            stage.instance("m").hold("until all are there")
            asked = [ask("m", str(n), max_tokens=40) for n in range(8)]
            answers = [await stage.kernel.generate(request) for request in asked]
            await start_together(stage, "m", answers)
            os.kill(stage.instance("m").pid, signal.SIGABRT)
            await asyncio.gather(*map(read, answers))
            stage.instance("m")._worker.breaker._crashes.clear()  # as if a minute later


@counts(6, 100)
@pytest.mark.timeout(600)
async def test_2_kills_at_random_times_leave_nothing_behind(tmp_path, count):
    """While loading, in prefill, in decode, with one and with several candidates."""
    dice = random.Random(7)
    script = FakeModel(tokens_per_s=500, prefill_tokens_per_s=5000, load_s=0.05, memory_bytes=1000)
    me = psutil.Process()
    async with running_kernel(tmp_path, {"m": script}) as stage:
        await generate(stage.kernel, "m", "warm", 1)
        descriptors, kills = me.num_fds(), 0
        for round_ in range(count):
            streams = [
                asyncio.create_task(
                    generate(
                        stage.kernel, "m", "x" * dice.randrange(1500), 50, candidates=1 + n % 2
                    )
                )
                for n in range(4)
            ]
            await asyncio.sleep(dice.random() * 0.2)  # the fault's own moment, not a wait
            if workers := worker_processes():
                workers[0].kill()
                kills += 1
            results = await asyncio.gather(*streams, return_exceptions=True)
            assert not [error for error in results if error is not None], round_
            await stage.until(WorkerCrashed, kills)  # also if it had nothing more to do
            assert stage.kernel.status().memory_reserved_bytes == 1000
            stage.instance("m")._worker.breaker._crashes.clear()
        await stage.assembly.lifecycle.close(errors.UnavailableError("over"))
        assert stage.kernel.status().memory_reserved_bytes == 0
        assert not me.children()
        assert me.num_fds() <= descriptors


@counts(40, 500)
@pytest.mark.timeout(600)
async def test_5_readers_that_leave_at_any_time_free_everything(tmp_path, count):
    dice = random.Random(5)
    script = FakeModel(tokens_per_s=500, prefill_tokens_per_s=10_000)
    async with running_kernel(tmp_path, {"m": script}, "[models]\nparallel = 4") as stage:

        async def leave():
            with await stage.kernel.generate(ask("m", "x" * dice.randrange(2000))) as answer:
                await asyncio.sleep(dice.random() * 0.1)  # the fault's own moment, not a wait
                await answer.next(timeout_s=0.0)

        await generate(stage.kernel, "m", "warm", 1)
        for _ in range(0, count, 20):
            await asyncio.gather(*(leave() for _ in range(20)))
            assert stage.instance("m").requests.is_idle
        await generate(stage.kernel, "m", "after", 5)


@counts(100, 1000)
@pytest.mark.timeout(600)
async def test_24_overload_is_refused_at_once_and_leaves_an_empty_queue(tmp_path, count):
    config = "[models]\nparallel = 4\n[queue]\nmax_waiting = 16\nmin_run_s = 0"
    me = psutil.Process()
    async with running_kernel(tmp_path, {"m": FakeModel(tokens_per_s=500)}, config) as stage:
        await generate(stage.kernel, "m", "warm", 1)
        before = me.memory_info().rss
        requests = (
            generate(stage.kernel, "m", str(number), 20, **caller(number))
            for number in range(count)
        )
        results = await asyncio.gather(*requests, return_exceptions=True)
        refused = [error for error in results if isinstance(error, errors.QueueFullError)]
        assert 0 < len(refused) < count
        assert len(refused) == sum(error is not None for error in results)
        assert all(1 <= error.retry_after_s <= 60 for error in refused)
        assert stage.instance("m").requests.is_idle
        assert me.memory_info().rss - before < 100e6


@counts(4, 20)
@pytest.mark.timeout(600)
async def test_22_models_that_take_turns_starve_nobody(tmp_path, count):
    scripts = {f"m{n}": FakeModel(memory_bytes=600) for n in range(5)}
    async with running_kernel(tmp_path, scripts, "[memory]\nbudget_bytes = 1300") as stage:
        for round_ in range(count):
            await asyncio.gather(
                *(
                    generate(stage.kernel, f"m{n % 5}", f"{round_} {n}", 3, **caller(n))
                    for n in range(20)
                )
            )
        # Each round asks for five models at once; two fit: none needs more than a load a round.
        assert len(stage.seen(ModelLoaded)) <= 5 * count


async def test_22_a_low_request_has_its_turn_while_high_ones_swap_models(tmp_path):
    scripts = {name: FakeModel(memory_bytes=600, tokens_per_s=500) for name in "abz"}
    config = "[memory]\nbudget_bytes = 700\n[models]\nturn_s = 0.2\n[queue]\nraise_after_s = 0.2\n"
    async with running_kernel(tmp_path, scripts, config) as stage, flood(stage.kernel, "ab", "x"):
        before = len(await stage.until(ModelLoaded, 2))
        async with asyncio.timeout(60):  # it would wait for as long as the flood goes on
            await generate(stage.kernel, "z", "low", 20, **caller(LOW))
        assert len(stage.seen(ModelLoaded)) - before <= 6, "two turns until it counts as high"


async def test_24_low_requests_end_whole_under_a_flood_of_high_ones(tmp_path):
    config = (
        "[models]\nparallel = 2\n[queue]\nraise_after_s = 0.2\nmin_run_s = 0\nmax_wait_s = 30\n"
    )
    async with running_kernel(tmp_path, {"m": FakeModel(tokens_per_s=200)}, config) as stage:
        requests = [ask("m", f"low {n}", max_tokens=60, **caller(LOW)) for n in range(4)]
        answers = [await stage.kernel.generate(request) for request in requests]
        assert isinstance(await answers[0].next(), Admitted)
        assert isinstance(await answers[0].next(), PromptProgress)
        async with flood(stage.kernel, "m", "high"), asyncio.timeout(60):
            await asyncio.gather(*map(read, answers))
        preemptions = [answer.resume.preemptions for answer in answers]
        assert 1 <= max(preemptions) <= 3
        assert stage.instance("m").requests.is_idle


@counts(60, 1000)
@pytest.mark.timeout(900)
async def test_23_whatever_is_loaded_and_unloaded_no_answer_is_broken(tmp_path, count):
    """Loads, unloads, evictions, times to live and requests, at random and all at once."""
    dice = random.Random(23)
    scripts = {name: FakeModel(memory_bytes=600, tokens_per_s=1000) for name in "abcd"}
    config = (
        "[memory]\nbudget_bytes = 1300\n[models]\nttl_s = 0.1\nturn_s = 0.2\nparallel = 2\n"
        "[queue]\nmin_run_s = 0\n"
    )
    allowed = (errors.UnavailableError, errors.InsufficientMemoryError, errors.ConflictError)

    async def step(kernel):
        model = dice.choice("abcd")
        match dice.randrange(5):
            case 0:
                overrides = LoadOverrides(
                    parallel=dice.choice((None, 2)), pinned=dice.random() < 0.2
                )
                await kernel.load(model, overrides)
            case 1:
                await kernel.unload(model)
            case _:
                who = caller(dice.randrange(6))
                await generate(kernel, model, str(dice.random()), dice.randrange(1, 40), **who)

    async with running_kernel(tmp_path, scripts, config) as stage:
        house = asyncio.ensure_future(stage.assembly.lifecycle.run_maintenance())
        for _ in range(0, count, 20):
            async with asyncio.timeout(300):
                steps = (step(stage.kernel) for _ in range(20))
                results = await asyncio.gather(*steps, return_exceptions=True)
            wrong = [error for error in results if error and not isinstance(error, allowed)]
            assert not wrong
            for model in stage.kernel.status().models:  # pins would fill the house for good
                if model.pinned:
                    await stage.kernel.unload(model.id)
        house.cancel()
        await asyncio.gather(*(stage.kernel.unload(name) for name in scripts))
        status = stage.kernel.status()
        assert status.memory_reserved_bytes == 0
        assert not [model for model in status.models if model.running or model.waiting]
        assert not psutil.Process().children()


@counts(6, 60)
@pytest.mark.timeout(300)
async def test_28_a_daemon_that_was_stopped_unloads_and_times_out_nothing(tmp_path, count):
    """As when the machine sleeps; ``count`` is in seconds, longer than every deadline here."""
    write_fake_models(tmp_path, {"m": FakeModel(tokens_per_s=50)})
    config = write_config(
        tmp_path,
        ("lmx_openai_api.plugin",),
        "[models]\nhang_timeout_s = 4\n[queue]\nmax_wait_s = 1000\n",
    )
    async with (
        running_daemon(config) as daemon,
        httpx.AsyncClient(base_url=daemon.url, timeout=300) as client,
    ):
        body = {"model": "m", "prompt": "x", "max_tokens": 60, "stream": True}
        async with client.stream("POST", "/v1/completions", json=body) as stream:
            lines = stream.aiter_lines()
            await anext(lines)
            daemon.process.send_signal(signal.SIGSTOP)
            await asyncio.sleep(count)  # the fault itself
            daemon.process.send_signal(signal.SIGCONT)
            rest = [line async for line in lines if line]
        assert rest[-1] == "data: [DONE]"
        [model] = (await client.get("/health/status")).json()["models"]
        assert model["state"] == "ready"
        assert (model["figures"]["crashes"], model["figures"]["loads"]) == (0, 1)


@counts(400, 50_000)
@pytest.mark.timeout(3600)
async def test_29_the_kernel_does_not_grow(tmp_path, count):
    me = psutil.Process()
    async with running_kernel(tmp_path, {"m": FakeModel()}) as stage:

        async def many(requests):
            for number in range(0, requests, 8):
                await asyncio.gather(
                    *(generate(stage.kernel, "m", str(number + n), 2) for n in range(8))
                )
            stage.events.clear()

        await many(400)  # what is kept for good is there by then
        before = (me.num_fds(), me.num_threads(), len(asyncio.all_tasks()))
        taken = me.memory_info().rss
        await many(count)
        assert (me.num_fds(), me.num_threads(), len(asyncio.all_tasks())) == before
        assert me.memory_info().rss - taken <= 1024 * count + 2e6
