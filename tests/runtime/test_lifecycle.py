"""Which models are loaded, and for how long: overrides, time to live, pins, turns, and room."""

from __future__ import annotations

import asyncio

import pytest

from lmx_kernel import errors
from lmx_kernel.daemon.background import autoload
from lmx_kernel.events import LoadFailed, LoadProgressed, LoadStarted, ModelLoaded, ModelUnloaded
from lmx_kernel.kernel.boot_verdict import BootVerdict
from lmx_kernel.runtime.instance import State
from lmx_kernel.testing.fake_model import FakeModel
from lmx_kernel.testing.harness import ask, running_kernel, write_fake_models
from lmx_kernel.types import LoadOverrides, Priority, Terms

ROOMY = "[memory]\nbudget_bytes = 1300\n"
HALF = FakeModel(memory_bytes=600)
MOST = FakeModel(memory_bytes=1000)


async def answer(kernel, model, tokens=2):
    with await kernel.generate(ask(model, max_tokens=tokens)) as answer:
        async for _ in answer:
            pass


async def read(answer):
    with answer:
        async for _ in answer:
            pass


def loaded(stage):
    return {model.id for model in stage.kernel.status().models if model.pid}


async def test_a_load_takes_overrides_and_publishes_its_progress(tmp_path):
    async with running_kernel(tmp_path, {"m": FakeModel(load_s=0.05)}) as stage:
        overrides = LoadOverrides(context_length=512, parallel=2, ttl_s=60, pinned=True)
        status = await stage.kernel.load("m", overrides)
        assert (status.state, status.context_length, status.parallel) == ("ready", 512, 2)
        assert (status.pinned, status.ttl_s, status.loaded_share) == (True, 60, 1)
        assert 0 < status.expires_in_s <= 60
        kinds = [type(event) for event in stage.events]
        assert (kinds[0], kinds[-1]) == (LoadStarted, ModelLoaded)
        assert LoadProgressed in kinds


async def test_the_same_overrides_again_change_nothing_and_others_load_anew(tmp_path):
    async with running_kernel(tmp_path, {"m": FakeModel()}) as stage:
        await asyncio.gather(*(stage.kernel.load("m", LoadOverrides()) for _ in range(20)))
        assert len(stage.seen(ModelLoaded)) == 1
        status = await stage.kernel.load("m", LoadOverrides(pinned=True))
        assert status.pinned
        assert len(stage.seen(ModelLoaded)) == 1
        status = await stage.kernel.load("m", LoadOverrides(parallel=3))
        assert status.parallel == 3
        assert len(stage.seen(ModelLoaded)) == 2


async def test_a_load_that_fails_says_why(tmp_path):
    async with running_kernel(tmp_path, {"m": FakeModel(load_error="it is cracked")}) as stage:
        with pytest.raises(errors.ModelUnusableError, match="it is cracked"):
            await stage.kernel.load("m", LoadOverrides())


async def test_unloading_lets_answers_end_and_refuses_new_ones(tmp_path):
    async with running_kernel(tmp_path, {"m": FakeModel(tokens_per_s=200)}) as stage:
        with await stage.kernel.generate(ask("m", max_tokens=30)) as running:
            await running.next()
            unload = asyncio.ensure_future(stage.kernel.unload("m"))
            await asyncio.sleep(0)
            with pytest.raises(errors.UnavailableError, match="being unloaded"):
                await stage.kernel.generate(ask("m"))
            events = [event async for event in running]
        await unload
        assert events[-1].reason == "length"
        assert running.usage().completion_tokens == 30
        assert [event.reason for event in stage.seen(ModelUnloaded)] == ["asked"]
        await answer(stage.kernel, "m")


async def test_what_takes_too_long_to_end_gets_an_error(tmp_path):
    config = "[models]\ndrain_s = 0.05"
    async with running_kernel(tmp_path, {"m": FakeModel(tokens_per_s=50)}, config) as stage:
        with await stage.kernel.generate(ask("m")) as running:
            await running.next()
            await stage.kernel.unload("m")
            with pytest.raises(errors.ModelUnloadedError, match="a new request loads it"):
                async for _ in running:
                    pass
        assert loaded(stage) == set()


async def test_unloading_while_it_loads_tells_whoever_waits(tmp_path):
    async with running_kernel(tmp_path, {"m": FakeModel(load_hang=True)}) as stage:
        load = asyncio.ensure_future(stage.kernel.load("m", LoadOverrides()))
        await stage.until(LoadStarted)
        await stage.kernel.unload("m")
        with pytest.raises(errors.ModelUnloadedError, match="a new request loads it"):
            await load


async def test_unused_models_expire_unless_they_were_loaded_by_request_of_the_user(tmp_path):
    config = "[models]\nttl_s = 0.2"
    async with running_kernel(tmp_path, {"a": FakeModel(), "b": FakeModel()}, config) as stage:
        house = asyncio.ensure_future(stage.assembly.lifecycle.run_maintenance())
        await stage.kernel.load("b", LoadOverrides())
        await answer(stage.kernel, "a")
        [gone] = await stage.until(ModelUnloaded)
        assert (gone.model, gone.reason) == ("a", "idle")
        assert loaded(stage) == {"b"}
        house.cancel()


async def test_nothing_in_flight_is_ever_too_old(tmp_path):
    config = "[models]\nttl_s = 0.01"
    async with running_kernel(tmp_path, {"m": FakeModel(tokens_per_s=20)}, config) as stage:
        house = asyncio.ensure_future(stage.assembly.lifecycle.run_maintenance())
        await answer(stage.kernel, "m", tokens=30)
        assert stage.seen(ModelUnloaded) == []
        [gone] = await stage.until(ModelUnloaded)
        assert gone.reason == "idle"
        house.cancel()


async def test_the_idle_model_used_longest_ago_makes_room_and_a_pinned_one_never(tmp_path):
    scripts = {"a": HALF, "b": HALF, "c": HALF}
    async with running_kernel(tmp_path, scripts, ROOMY) as stage:
        await answer(stage.kernel, "a")
        await answer(stage.kernel, "b")
        await answer(stage.kernel, "c")
        assert loaded(stage) == {"b", "c"}
        await stage.kernel.load("b", LoadOverrides(pinned=True))
        await answer(stage.kernel, "c")
        await answer(stage.kernel, "a")
        assert loaded(stage) == {"a", "b"}
        assert {event.reason for event in stage.seen(ModelUnloaded)} == {"evicted"}


async def test_a_load_without_room_says_what_is_needed_and_what_is_in_the_way(tmp_path):
    async with running_kernel(tmp_path, {"a": MOST, "b": MOST}, ROOMY) as stage:
        await stage.kernel.load("a", LoadOverrides(pinned=True))
        with pytest.raises(errors.InsufficientMemoryError, match=r"are needed.*pinned: a"):
            await stage.kernel.load("b", LoadOverrides())
        assert loaded(stage) == {"a"}


async def test_an_admission_tells_what_a_load_would_do(tmp_path):
    scripts = {"a": HALF, "b": HALF, "c": HALF, "huge": FakeModel(memory_bytes=5000)}
    async with running_kernel(tmp_path, scripts, ROOMY) as stage:
        for model in ("a", "b"):
            await answer(stage.kernel, model)
        fits = await stage.kernel.admission("c", LoadOverrides(context_length=64))
        assert (fits.unloads, fits.problem) == (("a",), None)
        assert (fits.estimate.total_bytes, fits.available_bytes) == (600, 100)
        assert fits.options.context_length == 64
        loaded_already = await stage.kernel.admission("a", LoadOverrides())
        assert (loaded_already.unloads, loaded_already.problem) == ((), None)
        huge = await stage.kernel.admission("huge", LoadOverrides())
        assert "are needed" in huge.problem
        assert loaded(stage) == {"a", "b"}


async def test_no_more_models_than_the_config_allows(tmp_path):
    config = "[models]\nmax_loaded = 1"
    async with running_kernel(tmp_path, {"a": FakeModel(), "b": FakeModel()}, config) as stage:
        await answer(stage.kernel, "a")
        await answer(stage.kernel, "b")
        assert loaded(stage) == {"b"}
        await stage.kernel.load("b", LoadOverrides(pinned=True))
        with pytest.raises(
            errors.InsufficientMemoryError, match="too many loaded models are pinned: b"
        ):
            await stage.kernel.load("a", LoadOverrides())
        assert "pinned" in (await stage.kernel.admission("a", LoadOverrides())).problem


async def test_requests_load_nothing_when_the_config_says_so(tmp_path):
    async with running_kernel(tmp_path, {"m": FakeModel()}, "[models]\njit = false") as stage:
        with pytest.raises(errors.ModelNotLoadedError, match="jit is off"):
            await stage.kernel.generate(ask("m"))
        await stage.kernel.load("m", LoadOverrides())
        await answer(stage.kernel, "m")


async def test_two_bots_on_two_models_do_not_swap_them_on_every_request(tmp_path):
    async with running_kernel(tmp_path, {"a": MOST, "b": MOST}, ROOMY) as stage:

        async def bot(model):
            for _ in range(20):
                await answer(stage.kernel, model)

        await asyncio.gather(bot("a"), bot("b"))
        assert len(stage.seen(ModelLoaded)) <= 7


async def test_a_model_that_is_always_used_still_lets_the_other_have_its_turn(tmp_path):
    config = ROOMY + "[models]\nturn_s = 0.3"
    scripts = {"a": FakeModel(memory_bytes=1000, tokens_per_s=100), "b": MOST}
    async with running_kernel(tmp_path, scripts, config) as stage:
        stop = False

        async def busy():
            while not stop:
                await answer(stage.kernel, "a")

        bots = [asyncio.ensure_future(busy()) for _ in range(3)]
        await stage.until(ModelLoaded)
        with await stage.kernel.generate(ask("a")) as long:  # there is no moment without a request
            await long.next()
            other = asyncio.ensure_future(answer(stage.kernel, "b"))
            while stage.instance("a").state is not State.DRAINING:
                await asyncio.sleep(0)
        await other
        stop = True
        await asyncio.gather(*bots)
        assert stage.seen(ModelUnloaded)[0].reason == "turn"


async def test_a_storm_on_a_cold_model_makes_one_load(tmp_path):
    async with running_kernel(tmp_path, {"m": FakeModel(load_s=0.1)}) as stage:
        await asyncio.gather(*(answer(stage.kernel, "m") for _ in range(64)))
        assert len(stage.seen(ModelLoaded)) == 1


async def test_a_model_is_deleted_but_never_while_it_is_loaded(tmp_path):
    async with running_kernel(tmp_path, {"m": FakeModel()}) as stage:
        await stage.kernel.load("m", LoadOverrides())
        with pytest.raises(errors.ConflictError, match="unload it first"):
            await stage.kernel.delete("m")
        await stage.kernel.unload("m")
        await stage.kernel.delete("m")
        assert stage.kernel.models() == []
        with pytest.raises(errors.ModelNotFoundError):
            await stage.kernel.delete("m")


async def test_a_request_that_an_unload_cuts_off_is_not_to_be_repeated(tmp_path):
    """A client's library would load at once what somebody unloaded on purpose."""
    async with running_kernel(tmp_path, {"m": FakeModel(load_hang=True)}) as stage:
        with await stage.kernel.generate(ask("m")) as waiting:
            await stage.until(LoadStarted)
            await stage.kernel.unload("m")
            with pytest.raises(errors.ModelUnloadedError) as caught:
                await waiting.next()
        assert (caught.value.code, caught.value.status) == ("model_unloaded", 409)
        assert not caught.value.retryable


@pytest.mark.parametrize(
    ("verdict", "expected"),
    [
        (BootVerdict(), {"a", "b"}),
        (BootVerdict(suspects=frozenset({"a"})), {"b"}),
        (BootVerdict(safe_mode=True), set()),
    ],
)
async def test_models_are_loaded_at_the_start_but_not_what_killed_the_last_one(
    tmp_path, verdict, expected
):
    config = '[models]\nautoload = ["a", "missing", "b"]'
    async with running_kernel(tmp_path, {"a": FakeModel(), "b": FakeModel()}, config) as stage:
        await autoload(stage.assembly, stage.settings, verdict)
        assert loaded(stage) == expected


# --- loads that fail, and what happens meanwhile ------------------------------------------------


async def test_a_load_that_is_refused_leaves_the_model_as_it_is(tmp_path):
    async with running_kernel(tmp_path, {"m": HALF}, ROOMY) as stage:
        await answer(stage.kernel, "m")
        pid = stage.instance("m").pid
        write_fake_models(
            tmp_path, {"m": FakeModel(memory_bytes=2000)}
        )  # what more rows would take
        with pytest.raises(errors.InsufficientMemoryError, match="would not make enough room"):
            await stage.kernel.load("m", LoadOverrides(parallel=3, pinned=True))
        await answer(stage.kernel, "m")
        [model] = stage.kernel.status().models
        assert (model.pid, model.parallel, model.pinned) == (pid, 8, False)


async def test_another_way_of_loading_counts_also_while_requests_wait(tmp_path):
    script = FakeModel(tokens_per_s=200)
    async with running_kernel(tmp_path, {"m": script}, "[models]\nparallel = 1") as stage:
        with await stage.kernel.generate(ask("m", max_tokens=20)) as running:
            await running.next()
            load = asyncio.ensure_future(stage.kernel.load("m", LoadOverrides(parallel=3)))
            while stage.instance("m").state is not State.DRAINING:
                await asyncio.sleep(0)
            waiting = asyncio.ensure_future(answer(stage.kernel, "m"))
            async for _ in running:
                pass
        assert (await load).parallel == 3
        await waiting
        assert len(stage.seen(ModelLoaded)) == 2


async def test_a_slow_reader_goes_on_with_the_one_worker_of_its_model(tmp_path):
    async with running_kernel(tmp_path, {"m": HALF}, ROOMY) as stage:
        with await stage.kernel.generate(ask("m", max_tokens=3000)) as unread:
            while not (unread.is_full and stage.instance("m").requests.running == 0):
                await asyncio.sleep(0)
            await stage.kernel.load("m", LoadOverrides(parallel=3))
            pid = stage.instance("m").pid
            events = [event async for event in unread]
        assert events[-1].reason == "length"
        assert stage.instance("m").pid == pid
        assert stage.assembly.lifecycle.ledger.held == {"m": 600}
        await stage.kernel.unload("m")
        assert stage.assembly.lifecycle.ledger.held == {}


async def test_who_waits_for_room_can_be_unloaded_at_once(tmp_path):
    config = f"{ROOMY}[models]\nturn_s = 60"
    scripts = {"a": FakeModel(memory_bytes=1000, tokens_per_s=20), "b": MOST}
    async with running_kernel(tmp_path, scripts, config) as stage:
        with await stage.kernel.generate(ask("a")) as running:
            await running.next()
            waiting = asyncio.ensure_future(stage.kernel.load("b", LoadOverrides()))
            while "b" not in stage.assembly.lifecycle.instances:
                await asyncio.sleep(0)
            await stage.kernel.unload("b")
            with pytest.raises(errors.ModelUnloadedError, match="a new request loads it"):
                await waiting
            assert stage.instance("a").requests.running == 1
        assert stage.seen(ModelUnloaded) == []


async def test_a_load_that_is_given_up_at_once_can_be_begun_again(tmp_path):
    async with running_kernel(tmp_path, {"m": FakeModel()}) as stage:
        load = asyncio.ensure_future(stage.kernel.load("m", LoadOverrides()))
        while "m" not in stage.assembly.lifecycle.instances:
            await asyncio.sleep(0)
        await stage.kernel.unload("m")
        with pytest.raises(errors.ModelUnloadedError, match="a new request loads it"):
            await load
        await answer(stage.kernel, "m")


async def test_a_model_whose_files_are_gone_can_be_unloaded(tmp_path):
    async with running_kernel(tmp_path, {"m": FakeModel()}) as stage:
        await stage.kernel.load("m", LoadOverrides())
        (tmp_path / "m.fake.json").unlink()
        await stage.kernel.rescan()
        await stage.kernel.unload("m")
        assert loaded(stage) == set()


async def test_scarce_memory_hinders_nothing_that_gives_some_back(tmp_path):
    async with running_kernel(tmp_path, {"a": MOST, "b": MOST}, ROOMY) as stage:
        await stage.kernel.load("a", LoadOverrides())
        stage.instance("a").hold("memory is scarce")
        await stage.kernel.load("b", LoadOverrides())
        assert loaded(stage) == {"b"}
        stage.instance("b").hold("memory is scarce")
        await stage.kernel.unload("b")
        assert loaded(stage) == set()


# --- who waits for room, and who does not ---------------------------------------------------------


async def test_a_model_that_fits_does_not_wait_behind_one_that_does_not(tmp_path):
    scripts = {"a": FakeModel(memory_bytes=600, tokens_per_s=20), "b": MOST, "c": HALF}
    async with running_kernel(tmp_path, scripts, f"{ROOMY}[models]\nturn_s = 60") as stage:
        with await stage.kernel.generate(ask("a")) as running:
            await running.next()
            waiting = asyncio.ensure_future(stage.kernel.load("b", LoadOverrides()))
            while "b" not in stage.assembly.lifecycle.instances:
                await asyncio.sleep(0)
            await answer(stage.kernel, "c")
            assert loaded(stage) == {"a", "c"}
            assert not waiting.done()
        await waiting
        assert loaded(stage) == {"b"}


async def test_a_large_model_gets_its_turn_however_many_small_ones_come(tmp_path):
    slow = FakeModel(memory_bytes=600, tokens_per_s=100)
    scripts = {"a": slow, "b": slow, "large": MOST, "c": HALF}
    async with running_kernel(tmp_path, scripts, f"{ROOMY}[models]\nturn_s = 0") as stage:
        streams = [
            asyncio.ensure_future(answer(stage.kernel, "a", 20)),
            asyncio.ensure_future(answer(stage.kernel, "b", 60)),
        ]
        await stage.until(ModelLoaded, 2)
        large = asyncio.ensure_future(stage.kernel.load("large", LoadOverrides()))
        await stage.until(ModelUnloaded)  # one is gone: there would be room for a small one
        small = [asyncio.ensure_future(answer(stage.kernel, name)) for name in ("a", "c")]
        await asyncio.gather(large, *streams, *small)
        assert [event.model for event in stage.seen(ModelLoaded)][2] == "large"


@pytest.mark.parametrize(
    ("third", "fourth"),
    [
        ({"caller": "ann"}, {"terms": Terms(priority=Priority.HIGH)}),
        ({"terms": Terms(priority=Priority.LOW)}, {"caller": "ann"}),
        ({"caller": "ann"}, {"caller": "bob"}),
    ],
)
async def test_models_that_wait_for_room_are_loaded_in_the_order_of_shares(tmp_path, third, fourth):
    """Ann was served by the first model already; who unloads another now stays the first."""
    scripts = {"a": FakeModel(memory_bytes=1000, tokens_per_s=50), "b": MOST, "c": MOST, "d": MOST}
    async with running_kernel(tmp_path, scripts, f"{ROOMY}[models]\nturn_s = 60") as stage:
        line = stage.assembly.lifecycle._line._waiting
        with await stage.kernel.generate(ask("a", caller="ann")) as running:
            for _ in range(4):
                await running.next()
            waiting = []
            for number, fields in enumerate(({"caller": "ann"}, third, fourth), 1):
                request = ask("abcd"[number], max_tokens=2, **fields)
                waiting.append(asyncio.ensure_future(read(await stage.kernel.generate(request))))
                while len(line) < number:
                    await asyncio.sleep(0.001)
        await asyncio.gather(*waiting)
        assert [event.model for event in stage.seen(ModelLoaded)] == [*"abdc"]


async def test_a_pin_ends_with_the_unload(tmp_path):
    async with running_kernel(tmp_path, {"m": FakeModel()}) as stage:
        await stage.kernel.load("m", LoadOverrides(pinned=True))
        await stage.kernel.unload("m")
        await answer(stage.kernel, "m")
        [model] = stage.kernel.status().models
        assert not model.pinned


@pytest.mark.parametrize("loaded_before", [False, True])
async def test_a_load_whose_caller_leaves_goes_on_as_it_was_asked_for(tmp_path, loaded_before):
    """Also while the model is unloaded first, since it was loaded in another way."""
    async with running_kernel(tmp_path, {"m": FakeModel(load_s=0.1)}) as stage:
        if loaded_before:
            await stage.kernel.load("m", LoadOverrides())
        wish = LoadOverrides(parallel=2, pinned=True)
        load = asyncio.ensure_future(stage.kernel.load("m", wish))
        await stage.until(ModelUnloaded if loaded_before else LoadStarted)
        load.cancel()
        with pytest.raises(asyncio.CancelledError):
            await load
        await stage.until(ModelLoaded, 1 + loaded_before)
        await stage.kernel.load("m", wish)
        [model] = stage.kernel.status().models
        assert (model.parallel, model.pinned) == (2, True)
        assert len(stage.seen(ModelLoaded)) == 1 + loaded_before


async def test_a_load_that_fails_after_its_caller_left_leaves_no_wish_behind(tmp_path):
    async with running_kernel(tmp_path, {"m": FakeModel(load_s=0.1, load_error="x")}) as stage:
        load = asyncio.ensure_future(stage.kernel.load("m", LoadOverrides(pinned=True)))
        await stage.until(LoadStarted)
        load.cancel()
        await stage.until(LoadFailed)
        write_fake_models(tmp_path, {"m": FakeModel()})
        await answer(stage.kernel, "m")
        [model] = stage.kernel.status().models
        assert not model.pinned
