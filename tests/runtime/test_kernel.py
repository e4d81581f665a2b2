"""A kernel with real workers and fake models: what a request's reader sees."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from lmx_kernel import errors
from lmx_kernel.events import ModelLoaded, WorkerCrashed
from lmx_kernel.runtime import process
from lmx_kernel.runtime.instance import State
from lmx_kernel.testing.fake_model import FakeModel
from lmx_kernel.testing.harness import ask, running_kernel, worker_processes
from lmx_kernel.types import Admitted, Finished, LoadOverrides, SamplingRequest, TextDelta

SLOW = FakeModel(tokens_per_s=100)


async def read(answer, on_token=None):
    """Return each candidate's text, and why it ended."""
    texts = [""] * answer.request.candidates
    reasons = [None] * answer.request.candidates
    with answer:
        async for event in answer:
            if isinstance(event, TextDelta):
                texts[event.candidate] += event.text
                if on_token:
                    on_token(event)
            elif isinstance(event, Finished):
                reasons[event.candidate] = event.reason
    return texts, reasons


async def generate(kernel, *args, on_token=None, **fields):
    return await read(await kernel.generate(ask(*args, **fields)), on_token)


def assert_counts(text, tokens):
    """A fake answer counts, so a lost or doubled token shows."""
    numbers = [int(word) for word in text.split()]
    assert len(numbers) == tokens
    assert numbers == [(numbers[0] + n) % 4096 for n in range(tokens)]


def once(do, after=5):
    """Return a callback that calls ``do`` at the n-th token, once."""
    seen = 0

    def on_token(_):
        nonlocal seen
        seen += 1
        if seen == after:
            do()

    return on_token


def pid_of(stage, model):
    return stage.instance(model).pid


async def test_an_answer_is_admitted_then_text_then_the_end(tmp_path):
    async with running_kernel(tmp_path, {"m": FakeModel()}) as stage:
        with await stage.kernel.generate(ask("m", max_tokens=3)) as answer:
            events = [event async for event in answer]
        assert isinstance(events[0], Admitted)
        assert isinstance(events[-1], Finished)
        usage = answer.usage()
        assert usage.prompt_tokens == len("user: hello\nassistant:")
        assert usage.completion_tokens == 3
        assert 0 < usage.first_token_s <= usage.total_s


async def test_stop_texts_and_limits_end_an_answer(tmp_path):
    async with running_kernel(
        tmp_path, {"m": FakeModel(), "short": FakeModel(answer_tokens=4)}
    ) as stage:
        kernel = stage.kernel
        greedy = SamplingRequest(temperature=0)
        [whole], reasons = await generate(kernel, "m", max_tokens=10, sampling=greedy)
        assert reasons == ["length"]
        stop = whole.split()[6]
        [text], reasons = await generate(kernel, "m", stop=(stop,), sampling=greedy)
        assert (text, reasons) == (whole[: whole.index(stop)], ["stop"])
        [text], reasons = await generate(kernel, "short")
        assert_counts(text, 4)
        assert reasons == ["stop"]


async def test_a_full_context_ends_an_answer(tmp_path):
    async with running_kernel(tmp_path, {"m": FakeModel(context_length=64)}) as stage:
        with await stage.kernel.generate(ask("m")) as answer:
            reasons = [event.reason async for event in answer if isinstance(event, Finished)]
        assert reasons == ["length"]
        usage = answer.usage()
        assert usage.prompt_tokens + usage.completion_tokens == 64 + 1


async def test_candidates_differ_and_a_seed_repeats_them(tmp_path):
    async with running_kernel(tmp_path, {"m": FakeModel()}) as stage:
        fields = {"candidates": 3, "max_tokens": 4, "sampling": SamplingRequest(seed=7)}
        texts, _ = await generate(stage.kernel, "m", **fields)
        assert len(set(texts)) == 3
        again, _ = await generate(stage.kernel, "m", **fields)
        assert again == texts


async def test_an_engine_s_figures_are_told(tmp_path):
    async with running_kernel(tmp_path, {"m": SLOW}) as stage:

        def look():
            [model] = stage.kernel.status().models
            assert model.engine.cache_tokens_used > len("user: hello")
            [same] = stage.kernel.model_statuses()
            assert (same.id, same.running, same.engine) == (model.id, 1, model.engine)

        await generate(stage.kernel, "m", max_tokens=10, on_token=once(look))


async def test_unknown_unusable_and_overlong(tmp_path):
    (tmp_path / "broken.fake.json").write_text("{")
    async with running_kernel(tmp_path, {"m": FakeModel(context_length=64)}) as stage:
        kernel = stage.kernel
        with pytest.raises(errors.ModelNotFoundError, match="m"):
            await kernel.generate(ask("nope"))
        with pytest.raises(errors.ModelUnusableError, match="not a script"):
            await kernel.generate(ask("broken"))
        with pytest.raises(errors.ContextOverflowError, match="64 tokens") as caught:
            await generate(kernel, "m", "x" * 64)
        assert caught.value.figures == {"tokens": len(f"user: {'x' * 64}\nassistant:"), "limit": 64}


async def test_a_model_dropped_into_the_folder_is_found(tmp_path):
    async with running_kernel(tmp_path, {}) as stage:
        (tmp_path / "late.fake.json").write_text("{}")
        assert_counts((await generate(stage.kernel, "LATE", max_tokens=2))[0][0], 2)


# --- faults 1, 2, 4: workers that die or hang ----------------------------------------------------

REAL_TIME = pytest.param(36, marks=pytest.mark.linux("a real-time signal"))


@pytest.mark.parametrize("number", [signal.SIGABRT, signal.SIGSEGV, signal.SIGKILL, REAL_TIME])
async def test_streams_go_on_after_their_worker_died(tmp_path, number):
    async with running_kernel(tmp_path, {"m": SLOW, "other": SLOW}) as stage:
        kernel = stage.kernel
        greedy = {"max_tokens": 30, "sampling": SamplingRequest(temperature=0)}
        undisturbed, _ = await generate(kernel, "m", "q0", **greedy)
        kill = once(lambda: os.kill(pid_of(stage, "m"), number))
        others = asyncio.create_task(generate(kernel, "other", max_tokens=60))
        answers = await asyncio.gather(
            generate(kernel, "m", "q0", on_token=kill, **greedy),
            *(generate(kernel, "m", f"q{n}", max_tokens=30) for n in range(1, 7)),
            generate(kernel, "m", "n", max_tokens=30, candidates=2),
        )
        for texts, reasons in answers:
            for text in texts:
                assert_counts(text, 30)
            assert set(reasons) == {"length"}
        assert answers[0][0] == undisturbed
        assert_counts((await others)[0][0], 60)
        assert stage.instance("m").state is State.READY


async def test_an_error_where_a_worker_s_end_is_noticed_loses_no_stream(tmp_path, monkeypatch):
    def fail(_):
        monkeypatch.undo()
        raise ValueError

    async with running_kernel(tmp_path, {"m": FakeModel(tokens_per_s=100, crash_at=10)}) as stage:
        await stage.kernel.load("m", LoadOverrides())
        monkeypatch.setattr(process, "describe_exit", fail)
        assert_counts((await generate(stage.kernel, "m", max_tokens=20))[0][0], 20)


async def test_usage_is_right_after_a_resume(tmp_path):
    async with running_kernel(tmp_path, {"m": FakeModel(tokens_per_s=100, crash_at=10)}) as stage:
        answer = await stage.kernel.generate(ask("m", max_tokens=20))
        await read(answer)
        assert answer.usage().completion_tokens == 20
        assert answer.usage().prompt_tokens == len("user: hello\nassistant:")


async def test_a_seeded_stream_resumes_as_it_began(tmp_path):
    scripts = {"m": FakeModel(tokens_per_s=100), "bad": FakeModel(tokens_per_s=100, crash_at=7)}
    async with running_kernel(tmp_path, scripts) as stage:
        fields = {"max_tokens": 20, "sampling": SamplingRequest(seed=3), "candidates": 2}
        expected, _ = await generate(stage.kernel, "m", **fields)
        assert (await generate(stage.kernel, "bad", **fields))[0] == expected


@pytest.mark.parametrize("said", [0, 1, 7, 12])
async def test_an_answer_goes_on_after_what_it_said_before(tmp_path, said):
    """As after a restart of the daemon: the reader knows the beginning already."""
    fields = {"sampling": SamplingRequest(seed=5), "max_tokens": 12, "stop": ("never",)}
    async with running_kernel(tmp_path, {"m": FakeModel()}) as running:
        events = [event async for event in await running.kernel.generate(ask("m", **fields))]
        whole = [event for event in events if isinstance(event, TextDelta)]
        tokens = [token for event in whole for token in event.tokens]
        answer = await running.kernel.generate(ask("m", said=tuple(tokens[:said]), **fields))
        rest = [event async for event in answer]
    told = [event for event in rest if isinstance(event, TextDelta)]
    assert [token for event in told for token in event.tokens] == tokens[said:]
    before = [event.text for event in whole[:said]]
    assert "".join([*before, *(event.text for event in told)]) == "".join(e.text for e in whole)
    assert rest[-1] == events[-1]
    assert answer.usage().completion_tokens == len(tokens)


async def test_the_stop_text_that_ended_an_answer_is_told(tmp_path):
    async with running_kernel(tmp_path, {"m": FakeModel(says="one two three")}) as running:
        answer = await running.kernel.generate(ask("m", stop=("three", " two")))
        (end,) = [event async for event in answer if isinstance(event, Finished)]
    assert (end.reason, end.stop) == ("stop", " two")


async def test_a_request_that_meets_two_crashes_fails_and_its_neighbours_go_on(tmp_path):
    script = FakeModel(tokens_per_s=50, poison="POISON")
    async with running_kernel(tmp_path, {"m": script}) as stage:
        poison = asyncio.create_task(generate(stage.kernel, "m", "POISON", max_tokens=5))
        with pytest.raises(errors.EngineCrashedError) as caught:
            await poison
        assert caught.value.retryable  # nothing of it was told yet
        assert_counts((await generate(stage.kernel, "m", max_tokens=5))[0][0], 5)


async def test_a_told_request_that_meets_two_crashes_is_not_retryable(tmp_path):
    script = FakeModel(tokens_per_s=100, crash_at=5, times=2)
    async with running_kernel(tmp_path, {"m": script}) as stage:
        with pytest.raises(errors.EngineCrashedError) as caught:
            await generate(stage.kernel, "m", max_tokens=50)
        assert not caught.value.retryable


async def test_three_crashes_of_unknown_cause_leave_the_model_alone(tmp_path):
    async with running_kernel(tmp_path, {"m": SLOW}) as stage:
        seen = 0

        def kill_now_and_then(_):  # whenever both have run together for a while
            nonlocal seen
            seen += 1
            if seen % 20 == 0:
                os.kill(pid_of(stage, "m"), signal.SIGABRT)

        results = await asyncio.gather(
            generate(stage.kernel, "m", "a", max_tokens=500, on_token=kill_now_and_then),
            generate(stage.kernel, "m", "b", max_tokens=500),
            return_exceptions=True,
        )
        assert {type(result) for result in results} == {errors.EngineCrashedError}
        assert len(stage.seen(WorkerCrashed)) == 3
        assert stage.instance("m").state is State.COOLING
        with pytest.raises(errors.UnavailableError) as caught:
            await stage.kernel.generate(ask("m"))
        assert 1 <= caught.value.retry_after_s <= 61
        assert stage.kernel.status().memory_reserved_bytes == 0


async def test_a_hung_worker_is_replaced_and_its_streams_go_on(tmp_path):
    script = FakeModel(tokens_per_s=100, hang_at=10)
    config = "[models]\nhang_timeout_s = 5"  # a busy machine must not make the next one look hung
    async with running_kernel(tmp_path, {"m": script}, config) as stage:
        answers = await asyncio.gather(
            *(generate(stage.kernel, "m", f"q{n}", max_tokens=20) for n in range(3))
        )
        for [text], _ in answers:
            assert_counts(text, 20)


async def test_an_idle_worker_that_hangs_is_replaced(tmp_path):
    async with running_kernel(
        tmp_path, {"m": FakeModel()}, "[models]\nhang_timeout_s = 5"
    ) as stage:
        await generate(stage.kernel, "m", max_tokens=1)
        os.kill(pid_of(stage, "m"), signal.SIGSTOP)
        assert_counts((await generate(stage.kernel, "m", max_tokens=5))[0][0], 5)


async def test_slow_prefill_is_not_a_hang(tmp_path):
    script = FakeModel(prefill_tokens_per_s=640, context_length=8192)
    async with running_kernel(tmp_path, {"m": script}, "[models]\nhang_timeout_s = 3") as stage:
        await generate(stage.kernel, "m", "x" * 2500, max_tokens=1)
        assert not stage.seen(WorkerCrashed)


async def test_a_worker_killed_while_it_loads_is_started_again(tmp_path):
    async with running_kernel(tmp_path, {"m": FakeModel(load_s=0.5)}) as stage:
        pending = asyncio.create_task(generate(stage.kernel, "m", max_tokens=3))
        worker = await loading_worker(stage, "m")
        worker.kill()
        assert_counts((await pending)[0][0], 3)
        await stage.assembly.lifecycle.close(errors.UnavailableError("over"))
        assert stage.kernel.status().memory_reserved_bytes == 0


async def loading_worker(stage, model):
    """Wait until a worker process exists for a model."""
    while not (workers := worker_processes()):
        await asyncio.sleep(0)
    return workers[0]


async def test_a_load_that_hangs_is_given_up(tmp_path):
    script = FakeModel(load_hang=True, times=9)
    async with running_kernel(tmp_path, {"m": script}, "[models]\nload_timeout_s = 0.3") as stage:
        with pytest.raises(errors.EngineCrashedError, match="no sign of life"):
            await generate(stage.kernel, "m")
        assert stage.kernel.status().memory_reserved_bytes == 0


async def test_a_load_that_fails_says_why_and_gives_the_memory_back(tmp_path):
    async with running_kernel(tmp_path, {"m": FakeModel(load_error="bad tensor x")}) as stage:
        with pytest.raises(errors.ModelUnusableError, match="bad tensor x"):
            await generate(stage.kernel, "m")
        assert stage.kernel.status().memory_reserved_bytes == 0


async def test_one_sequence_that_fails_leaves_the_others(tmp_path):
    script = FakeModel(tokens_per_s=100, sour="SOUR")
    async with running_kernel(tmp_path, {"m": script}) as stage:
        good = asyncio.create_task(generate(stage.kernel, "m", "good", max_tokens=30))
        with pytest.raises(errors.EngineFailedError, match="not finite"):
            await generate(stage.kernel, "m", "SOUR", max_tokens=30)
        assert_counts((await good)[0][0], 30)
        assert not stage.seen(WorkerCrashed)


# --- faults 5, 6: readers that leave or stall ----------------------------------------------------


async def test_leaving_frees_the_slot(tmp_path):
    config = "[models]\nparallel = 1"
    async with running_kernel(tmp_path, {"m": SLOW}, config) as stage:
        with await stage.kernel.generate(ask("m", "first")) as first:
            async for event in first:
                if isinstance(event, TextDelta):
                    break
            queued = await stage.kernel.generate(ask("m", "queued"))
            queued.close()
        assert stage.instance("m").requests.is_idle
        assert_counts((await generate(stage.kernel, "m", max_tokens=3))[0][0], 3)


async def test_a_stalled_reader_frees_its_slot_and_loses_nothing(tmp_path):
    config = "[models]\nparallel = 1"
    script = FakeModel(context_length=8192)
    async with running_kernel(tmp_path, {"m": script}, config) as stage:
        stalled = await stage.kernel.generate(ask("m", "stalled", max_tokens=3000))
        # It fills its buffer and is put aside: the only slot is free for the other.
        assert_counts((await generate(stage.kernel, "m", "other", max_tokens=5))[0][0], 5)
        [text], reasons = await read(stalled)
        assert_counts(text, 3000)
        assert reasons == ["length"]


# --- faults 22, 24: many at once -----------------------------------------------------------------


async def test_a_storm_on_a_cold_model_makes_one_load(tmp_path):
    async with running_kernel(tmp_path, {"m": FakeModel(load_s=0.1)}) as stage:
        answers = await asyncio.gather(
            *(generate(stage.kernel, "m", f"q{n}", max_tokens=3) for n in range(64))
        )
        for [text], _ in answers:
            assert_counts(text, 3)
        assert len(stage.seen(ModelLoaded)) == 1


async def test_a_full_queue_refuses_at_once(tmp_path):
    config = "[models]\nparallel = 1\n[queue]\nmax_waiting = 2"
    async with running_kernel(tmp_path, {"m": SLOW}, config) as stage:
        await generate(stage.kernel, "m", max_tokens=1)
        answers = [await stage.kernel.generate(ask("m", str(n))) for n in range(1 + 2)]
        with pytest.raises(errors.QueueFullError) as caught:
            await stage.kernel.generate(ask("m"))
        assert caught.value.retry_after_s
        for answer in answers:
            answer.close()


async def test_who_waits_too_long_is_refused(tmp_path):
    config = "[models]\nparallel = 1\n[queue]\nmax_wait_s = 0.5"
    async with running_kernel(tmp_path, {"m": SLOW}, config) as stage:
        await stage.kernel.load("m", LoadOverrides())
        with await stage.kernel.generate(ask("m", "long")) as running:
            assert isinstance(await running.next(), Admitted)
            while not isinstance(await running.next(), TextDelta):
                pass
            with pytest.raises(errors.UnavailableError) as caught:
                await generate(stage.kernel, "m", "late")
            assert caught.value.retry_after_s


async def test_running_out_of_cache_pauses_the_youngest_and_loses_nothing(tmp_path):
    config = "[models]\ncontext_length = 128\ncache_tokens = 200\n[queue]\nexpected_tokens = 8"
    async with running_kernel(tmp_path, {"m": FakeModel()}, config) as stage:
        answers = await asyncio.gather(
            *(generate(stage.kernel, "m", f"q{n}", max_tokens=90) for n in range(5))
        )
        for [text], _ in answers:
            assert_counts(text, 90)


async def test_models_that_do_not_fit_together_take_turns(tmp_path):
    script = FakeModel(memory_bytes=600, answer_tokens=5)
    scripts = {f"m{n}": script for n in range(5)}
    async with running_kernel(tmp_path, scripts, "[memory]\nbudget_bytes = 1300") as stage:
        answers = await asyncio.gather(
            *(generate(stage.kernel, f"m{n % 5}", str(n)) for n in range(20))
        )
        for [text], _ in answers:
            assert_counts(text, 5)
        assert stage.kernel.status().memory_reserved_bytes <= 1300


async def test_a_stalled_reader_does_not_make_its_model_come_back(tmp_path):
    scripts = {name: FakeModel(memory_bytes=600, context_length=8192) for name in ("a", "b")}
    async with running_kernel(tmp_path, scripts, "[memory]\nbudget_bytes = 1000") as stage:
        stalled = await stage.kernel.generate(ask("a", max_tokens=3000))
        await generate(stage.kernel, "a", max_tokens=1)
        for _ in range(3):
            await generate(stage.kernel, "b", max_tokens=5)
        assert [event.model for event in stage.seen(ModelLoaded)] == ["a", "b"]
        [text], _ = await read(stalled)
        assert_counts(text, 3000)


async def test_a_model_that_can_never_fit_is_refused_with_the_figures(tmp_path):
    script = FakeModel(memory_bytes=3 * 1024**3)
    config = f"[memory]\nbudget_bytes = {2 * 1024**3}"
    async with running_kernel(tmp_path, {"big": script, "m": FakeModel()}, config) as stage:
        await generate(stage.kernel, "m", max_tokens=1)
        with pytest.raises(errors.InsufficientMemoryError, match=r"3\.00 GiB .* 2\.00 GiB"):
            await generate(stage.kernel, "big")
        assert stage.instance("m").state is State.READY  # nobody was evicted in vain
