"""Stored answers in one kernel: kept within limits, read by their owners, computed for nobody."""

from __future__ import annotations

import asyncio
import sqlite3
import stat
import time
from contextlib import asynccontextmanager
from functools import partial

import pytest
from attrs import evolve

from lmx_kernel.errors import (
    ConflictError,
    ContextOverflowError,
    DiskFullError,
    EngineCrashedError,
    InvalidRequestError,
    ModelNotFoundError,
    NotFoundError,
    QueueFullError,
    UnavailableError,
)
from lmx_kernel.events import RequestFinished
from lmx_kernel.http.context import RequestContext, current
from lmx_kernel.interfaces import HttpRequest, StoredAnswer
from lmx_kernel.stored import background
from lmx_kernel.stored.file import AnswerFile
from lmx_kernel.testing.fake_model import FakeModel
from lmx_kernel.testing.harness import ask, running_kernel
from lmx_kernel.types import (
    Admitted,
    EmbeddingPrompt,
    Finished,
    Priority,
    SamplingRequest,
    Terms,
    TextDelta,
    TextPrompt,
    Usage,
)

EVENTS = [Admitted(3), TextDelta(0, "hi", (1, 2)), Finished(0, "stop")]
USAGE = Usage(
    prompt_tokens=3,
    cached_tokens=0,
    completion_tokens=2,
    queue_s=0.0,
    first_token_s=0.1,
    total_s=0.2,
)
SLOW = {"m": FakeModel(tokens_per_s=50, answer_tokens=10_000)}
SHORT = {"m": FakeModel(answer_tokens=20)}


def answer(name="a", owner="anna", **fields):
    fields = {"body": b"{}", "created_at": time.time()} | fields
    return StoredAnswer(id=name, owner=owner, surface="test", **fields)


async def collect(reading):
    return [event async for event in reading]


async def read(store, name="a", owner="anna"):
    return await collect(await store.read(name, owner))


async def until_said(store, name="a", events=5):
    """Wait until an answer said something."""
    reading = await store.read(name, "anna")
    return [await reading.next() for _ in range(events)]


def text_of(events):
    return "".join(event.text for event in events if isinstance(event, TextDelta))


@asynccontextmanager
async def storing(folder, scripts=None, config=""):
    """Hold a kernel open, and yield it with its store."""
    async with running_kernel(folder, scripts or {}, config) as stage:
        yield stage, stage.kernel.stored_answers


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """Try again at once."""
    monkeypatch.setattr(background, "FIRST_PAUSE_S", 0.01)


# --- kept ----------------------------------------------------------------------------------------


async def test_an_answer_that_was_kept_is_read_with_all_that_belongs_to_it(tmp_path):
    kept = answer(body=b"\0body", model="m", ended_at=time.time(), outcome="ok", usage=USAGE)
    async with storing(tmp_path) as (_, store):
        await store.put(kept, EVENTS)
        assert await store.get("a", "anna") == kept
    async with storing(tmp_path) as (_, store):  # and by the next daemon
        assert await store.get("a", "anna") == kept
        reading = await store.read("a", "anna")
        assert await collect(reading) == EVENTS
        assert (reading.usage(), reading.outcome, reading.model) == (USAGE, "ok", "m")
        with pytest.raises(ConflictError):
            await store.put(kept, EVENTS)


async def test_an_answer_that_failed_is_read_with_its_error(tmp_path):
    async with storing(tmp_path) as (_, store):
        await store.put(answer(outcome="context_length_exceeded", problem="too long"), EVENTS[:1])
        reading = await store.read("a", "anna")
        assert await reading.next() == EVENTS[0]
        for _ in range(2):
            with pytest.raises(ContextOverflowError, match="too long"):
                await reading.next()


async def test_an_answer_belongs_to_its_owner(tmp_path):
    async with storing(tmp_path) as (_, store):
        await store.put(answer(), EVENTS)
        for call in (store.get, store.read, store.cancel, store.delete):
            for name, owner in (("a", "bert"), ("a", ""), ("b", "anna")):
                with pytest.raises(NotFoundError):
                    await call(name, owner)
        assert await read(store) == EVENTS


async def test_a_long_answer_is_read_in_pages(tmp_path):
    events = [TextDelta(0, f" {n}", (n,)) for n in range(10_000)]
    async with storing(tmp_path) as (_, store):
        await store.put(answer(), events)
        reading = await store.read("a", "anna")
        first = await reading.next()
        assert len(reading._events) < 5000
        assert [first, *await collect(reading)] == events


async def test_a_deleted_answer_is_gone(tmp_path):
    async with storing(tmp_path) as (_, store):
        await store.put(answer(), EVENTS)
        reading = await store.read("a", "anna")
        await store.delete("a", "anna")
        for gone in (store.get("a", "anna"), store.delete("a", "anna"), reading.next()):
            with pytest.raises(NotFoundError):
                await gone
        await store.put(answer(), EVENTS[:1])
        assert await read(store) == EVENTS[:1]


async def test_only_the_owner_of_the_process_can_read_the_file(tmp_path):
    async with storing(tmp_path) as (_, store):
        await store.put(answer(), EVENTS)
        folder = tmp_path / "state"
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        files = list(folder.glob("answers.db*"))
        assert len(files) == 3
        assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


async def test_the_oldest_complete_answers_are_forgotten_beyond_a_limit(tmp_path):
    config = "[stored_answers]\nmax_count = 3\nmax_bytes = 10_000\nmax_age_s = 1000"
    async with storing(tmp_path, {"m": FakeModel(load_s=60)}, config) as (stage, store):

        async def names():
            found = [name for name in "abcdefg" if await is_there(store, name)]
            assert stage.kernel.status().stored_answers == len(found)
            return "".join(found)

        await store.start(answer("a", created_at=1.0), ask("m"))
        now = time.time()
        for number, name in enumerate("bcd"):
            await store.put(answer(name, ended_at=now - 100 + number, body=bytes(1000)), EVENTS)
        assert await names() == "acd"
        await store.put(answer("e", ended_at=now - 50, body=bytes(8800)), EVENTS)
        assert await names() == "ae"
        await store.put(answer("f", ended_at=now - 1001), EVENTS)
        assert await names() == "ae"
        stage.kernel.configure({"stored_answers": {"max_age_s": 10}})
        await store.put(answer("g"), EVENTS)
        assert await names() == "ag"
        assert stage.kernel.status().background_answers == 1


async def is_there(store, name):
    try:
        await store.get(name, "anna")
    except NotFoundError:
        return False
    return True


# --- computed in the background ------------------------------------------------------------------


async def test_an_answer_is_computed_though_nobody_reads_it(tmp_path):
    async with storing(tmp_path, SHORT) as (stage, store):
        await store.start(answer(), ask("m"))
        await stage.until(RequestFinished)
        events = await read(store)
        assert isinstance(events[0], Admitted)
        assert len(text_of(events).split()) == 20
        assert isinstance(events[-1], Finished)
        found = await store.get("a", "anna")
        assert (found.model, found.outcome, found.problem) == ("m", "ok", "")
        assert found.ended_at >= found.created_at
        assert found.usage.completion_tokens == 21
        assert found.usage.prompt_tokens == events[0].prompt_tokens
        assert stage.kernel.status().background_answers == 0


async def test_an_answer_says_what_one_that_is_waited_for_says(tmp_path):
    request = ask("m", sampling=SamplingRequest(seed=5))
    async with storing(tmp_path, SHORT) as (stage, store):
        await store.start(answer(), request)
        with await stage.kernel.generate(request) as other:
            assert text_of(await read(store)) == text_of(await collect(other))


async def test_an_answer_is_read_while_it_is_computed(tmp_path):
    scripts = {"m": FakeModel(tokens_per_s=100, answer_tokens=100)}
    async with storing(tmp_path, scripts) as (_, store):
        await store.start(answer(), ask("m"))
        readings = [await store.read("a", "anna") for _ in range(3)]
        left = await store.read("a", "anna")
        await left.next()
        left.close()
        with pytest.raises(StopAsyncIteration):
            await left.next()
        one, *others = await asyncio.gather(*map(collect, readings))
        assert others == [one, one]
        assert len(text_of(one).split()) == 100
        assert {reading.outcome for reading in readings} == {"ok"}
        assert readings[0].usage() == (await store.get("a", "anna")).usage


async def test_a_reader_waits_no_longer_than_it_wants(tmp_path):
    async with storing(tmp_path, {"m": FakeModel(load_s=60)}) as (_, store):
        await store.start(answer(), ask("m"))
        reading = await store.read("a", "anna")
        assert await reading.next(0.01) is None
        assert reading.outcome is None
        assert (await store.get("a", "anna")).usage is None
        waiting = asyncio.ensure_future(reading.next())
        await asyncio.sleep(0)
        reading.close()
        with pytest.raises(StopAsyncIteration):
            await waiting
        assert (await store.get("a", "anna")).outcome is None


async def test_a_cancelled_answer_keeps_what_it_said(tmp_path):
    async with storing(tmp_path, SLOW) as (stage, store):
        await store.start(answer(), ask("m"))
        reading = await store.read("a", "anna")
        said = [await reading.next() for _ in range(5)]
        both = await asyncio.gather(*(store.cancel("a", "anna") for _ in range(2)))
        assert [one.outcome for one in both] == ["cancelled"] * 2
        said += await collect(reading)
        assert reading.outcome == "cancelled"
        assert await read(store) == said
        tokens = [token for event in said if isinstance(event, TextDelta) for token in event.tokens]
        assert both[0].usage.completion_tokens == len(tokens) > 0
        assert [event.outcome for event in await stage.until(RequestFinished)] == ["cancelled"]
        assert await store.cancel("a", "anna") == both[0]


async def test_an_answer_that_is_deleted_is_computed_no_more(tmp_path):
    async with storing(tmp_path, SLOW) as (stage, store):
        await store.start(answer(), ask("m"))
        reading = await store.read("a", "anna")
        await reading.next()
        await store.delete("a", "anna")
        with pytest.raises(NotFoundError):
            await collect(reading)
        assert [event.outcome for event in await stage.until(RequestFinished)] == ["cancelled"]
        assert store.running == 0
        with pytest.raises(NotFoundError):
            await store.get("a", "anna")


async def test_what_cannot_begin_is_not_kept(tmp_path):
    config = "[stored_answers]\nmax_count = 1"
    async with storing(tmp_path, SLOW, config) as (stage, store):
        embeds = evolve(ask("m"), prompt=EmbeddingPrompt((TextPrompt("x"),)))
        for request, error in (
            (ask("nobody"), ModelNotFoundError),
            (ask("m", candidates=2), InvalidRequestError),
            (embeds, InvalidRequestError),
        ):
            with pytest.raises(error):
                await store.start(answer(), request)
            assert not await is_there(store, "a")
        await store.start(answer(), ask("m"))
        with pytest.raises(QueueFullError):
            await store.start(answer("b"), ask("m"))
        stage.kernel.configure({"stored_answers": {"max_count": 2}})
        with pytest.raises(ConflictError):
            await store.start(answer(), ask("m"))
        stage.assembly.kernel.begin_drain()
        with pytest.raises(UnavailableError):
            await store.start(answer("b"), ask("m"))
        assert not await is_there(store, "b")


async def test_an_id_that_is_taken_costs_no_slot(tmp_path):
    async with storing(tmp_path, SLOW) as (stage, store):
        await store.put(answer(), EVENTS)
        with pytest.raises(ConflictError):
            await store.start(answer(), ask("m"))
        assert stage.instance("m").requests.is_idle
        assert await read(store) == EVENTS


async def test_what_is_found_wrong_later_ends_the_answer(tmp_path):
    scripts = {"m": FakeModel(context_length=64)}
    async with storing(tmp_path, scripts) as (_, store):
        await store.start(answer(), ask("m", "x" * 100))
        with pytest.raises(ContextOverflowError):
            await read(store)
        found = await store.get("a", "anna")
        assert found.outcome == "context_length_exceeded"
        assert found.problem


async def test_an_answer_that_found_no_room_is_tried_again(tmp_path):
    scripts = {"m": FakeModel(tokens_per_s=25, answer_tokens=40)}
    async with storing(tmp_path, scripts, "[models]\nparallel = 1") as (stage, store):
        with await stage.kernel.generate(ask("m")) as other:
            await other.next()
            stage.kernel.configure({"queue": {"max_wait_s": 0.2}})
            await store.start(answer(), ask("m", "later"))
            refused, *_ = await stage.until(RequestFinished)
            assert refused.outcome == "unavailable"
            await collect(other)
        assert len(text_of(await read(store)).split()) == 40


async def test_a_request_that_kills_its_worker_is_given_up(tmp_path):
    scripts = {"m": FakeModel(poison="poison", poison_in="prefill")}
    async with storing(tmp_path, scripts, "[models]\nload_timeout_s = 20") as (_, store):
        await store.start(answer(), ask("m", "poison"))
        with pytest.raises(EngineCrashedError):
            await read(store)


# --- over restarts -------------------------------------------------------------------------------


async def crash(store):
    """Stop computing as a kernel that is killed does: without a word to the file."""
    runs = store._background._runs
    for run in runs.values():
        while run.live is None:
            await asyncio.sleep(0.01)
        await run.stop()
    runs.clear()


async def go_on(store):
    await store._background.resume()


async def doubt_of(store):
    return await store._disk.do(lambda file: file._one("SELECT doubt FROM answers")[0])


async def test_an_answer_that_goes_nowhere_is_given_up_after_three_crashes(tmp_path):
    slow = {"m": FakeModel(prefill_tokens_per_s=3)}
    for kernel in range(3):
        async with storing(tmp_path, slow) as (_, store):
            await (go_on(store) if kernel else store.start(answer(), ask("m")))
            while await doubt_of(store) < 10 * (kernel + 1):
                await asyncio.sleep(0.01)
            await crash(store)
    async with storing(tmp_path, SHORT) as (_, store):
        assert (await store.get("a", "anna")).outcome is None
        await go_on(store)
        with pytest.raises(EngineCrashedError, match="several times"):
            await read(store)
        assert (await store.get("a", "anna")).outcome == "engine_crashed"


async def test_an_answer_is_not_given_up_while_others_get_on(tmp_path):
    models = {"m": FakeModel(prefill_tokens_per_s=3), "other": FakeModel(tokens_per_s=20)}
    for kernel in range(4):
        async with storing(tmp_path, models) as (_, store):
            await (go_on(store) if kernel else store.start(answer(), ask("m")))
            while await doubt_of(store) < kernel + 9:
                await asyncio.sleep(0.01)
            await store.start(answer("other"), ask("other"))
            await until_said(store, "other")
            await crash(store)
            await store.delete("other", "anna")
    async with storing(tmp_path, SHORT) as (_, store):
        await go_on(store)
        assert len(text_of(await read(store)).split()) == 20


async def test_an_answer_whose_model_was_being_loaded_at_each_crash_is_not_given_up(tmp_path):
    for kernel in range(6):
        async with storing(tmp_path, {"m": FakeModel(load_s=60)}) as (_, store):
            await (go_on(store) if kernel else store.start(answer(), ask("m")))
            await crash(store)
    async with storing(tmp_path, SHORT) as (_, store):
        await go_on(store)
        assert len(text_of(await read(store)).split()) == 20


async def test_an_answer_that_gets_on_is_never_given_up(tmp_path):
    for kernel in range(6):
        async with storing(tmp_path, SLOW) as (_, store):
            if kernel == 0:
                await store.start(answer(), ask("m"))
            reading = await store.read("a", "anna")
            while await reading.next(0.05):
                pass  # what is known already
            await go_on(store)
            assert [await reading.next() for _ in range(3)]
            await crash(store)


async def test_an_answer_goes_on_on_the_terms_of_the_key_that_began_it(tmp_path):
    terms = Terms(priority=Priority.LOW, weight=2)
    asking = HttpRequest(method="POST", path="/", headers={}, client="", key="ann", terms=terms)
    async with storing(tmp_path, {"m": FakeModel(load_s=60)}) as (_, store):
        token = current.set(RequestContext(asking))
        await store.start(answer(), ask("m"))
        current.reset(token)
    async with storing(tmp_path, SLOW) as (_, store):
        await go_on(store)
        await until_said(store)
        (live,) = (run.live.request for run in store._background._runs.values())
        assert (live.caller, live.cache_space) == ("ann", "ann")
        assert (live.terms, live.priority) == (terms, Priority.LOW)


async def test_stops_are_no_crashes(tmp_path):
    for kernel in range(6):
        async with storing(tmp_path, {"m": FakeModel(load_s=60)}) as (_, store):
            await (go_on(store) if kernel else store.start(answer(), ask("m")))
    async with storing(tmp_path, SHORT) as (_, store):
        await go_on(store)
        assert len(text_of(await read(store)).split()) == 20


async def test_a_reader_is_told_that_the_answer_goes_on_later(tmp_path):
    async with storing(tmp_path, SLOW) as (_, store):
        await store.start(answer(), ask("m"))
        reading = await store.read("a", "anna")
        await reading.next()
        await store.suspend()
        with pytest.raises(UnavailableError):
            await collect(reading)
        assert (await store.get("a", "anna")).outcome is None


async def test_an_answer_whose_model_is_not_there_yet_waits_for_it(tmp_path):
    async with storing(tmp_path, SHORT) as (stage, store):
        await store.start(answer(), ask("m"))
        await crash(store)
    (tmp_path / "m.fake.json").unlink()
    async with storing(tmp_path) as (stage, store):
        await go_on(store)
        reading = await store.read("a", "anna")
        while not stage.kernel.decisions():
            await reading.next(0.01)
        assert (await store.get("a", "anna")).outcome is None
        (tmp_path / "m.fake.json").write_text('{"answer_tokens": 20}')
        assert len(text_of(await collect(reading)).split()) == 20


async def test_an_answer_that_said_all_is_not_asked_for_again(tmp_path):
    async with storing(tmp_path, SHORT) as (stage, store):
        await store.start(answer(), ask("m"))
        events = await read(store)

        def reopen(file):
            file._database.execute("UPDATE answers SET outcome = NULL, request = X'00'")

        await store._disk.do(reopen)
        await store._disk.do(partial(set_request, request=ask("m")))
        await go_on(store)
        assert await read(store) == events
        assert len(stage.seen(RequestFinished)) == 1


def set_request(file, request):
    from lmx_kernel.stored.coding import pack_request

    file._database.execute("UPDATE answers SET request = ?", (pack_request(request),))


# --- a file that cannot be used ------------------------------------------------------------------


def events_of(caplog):
    return [record.msg["event"] for record in caplog.records if isinstance(record.msg, dict)]


def allow_pages(file, more):
    """Let the file grow by so many pages, as a disk that is almost full does."""
    (pages,) = file._database.execute("PRAGMA page_count").fetchone()
    file._database.execute(f"PRAGMA max_page_count = {pages + more}")


async def test_a_full_disk_stops_no_serving(tmp_path, caplog):
    async with storing(tmp_path, SHORT) as (stage, store):
        await store.put(answer("old"), EVENTS)
        await store._disk.do(partial(allow_pages, more=0))
        for name in "ab":
            await store.put(answer(name, body=bytes(100_000)), EVENTS)
            assert not await is_there(store, name)
        request = ask("m", "x" * 20_000, max_tokens=1)
        with pytest.raises(DiskFullError):
            await store.start(answer("c"), request)
        assert not await is_there(store, "c")
        assert stage.instance("m").requests.is_idle
        with await stage.kernel.generate(ask("m")) as other:
            assert len(text_of(await collect(other)).split()) == 20
        assert events_of(caplog).count("answer_not_stored") == 2
        assert events_of(caplog).count("stored_answers_failed") == 1
        assert await read(store, "old") == EVENTS
        await store._disk.do(partial(allow_pages, more=10_000))
        await store.put(answer("d", body=bytes(100_000)), EVENTS)
        assert await is_there(store, "d")
        assert events_of(caplog).count("stored_answers_recovered") == 1


async def test_a_disk_that_is_full_for_a_while_delays_an_answer(tmp_path):
    scripts = {"m": FakeModel(tokens_per_s=400, answer_tokens=2000)}
    async with storing(tmp_path, scripts) as (_, store):
        await store.start(answer(), ask("m"))
        await until_said(store)
        await store._disk.do(partial(allow_pages, more=2))
        async with asyncio.timeout(60):
            while not store._disk._is_failing:
                await asyncio.sleep(0.01)
        await store._disk.do(partial(allow_pages, more=100_000))
        numbers = [int(word) for word in text_of(await read(store)).split()]
        assert numbers == [(numbers[0] + n) % 4096 for n in range(2000)]


async def test_a_damaged_file_is_put_aside_at_the_start(tmp_path):
    path = tmp_path / "state" / "answers.db"
    path.parent.mkdir()
    path.write_bytes(b"no database" * 1000)
    async with storing(tmp_path, SHORT) as (_, store):
        await store.start(answer(), ask("m"))
        assert len(text_of(await read(store)).split()) == 20
    (aside,) = path.parent.glob("answers.db.damaged")
    assert aside.read_bytes().startswith(b"no database")


async def test_a_file_that_is_damaged_while_it_is_used_is_put_aside(tmp_path):
    path = tmp_path / "state" / "answers.db"
    async with storing(tmp_path, SLOW) as (_, store):
        await store.start(answer(), ask("m"))
        reading = await store.read("a", "anna")
        await reading.next()
        await store._disk.do(partial(damage, path=path))
        with pytest.raises(NotFoundError):
            await collect(reading)
        assert list(path.parent.glob("answers.db.damaged"))
        await store.put(answer("b"), EVENTS)
        assert await read(store, "b") == EVENTS


def damage(file, path):
    file._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with path.open("r+b") as raw:
        raw.seek(100)
        raw.write(b"\xff" * (path.stat().st_size - 100))
    file._database.execute("PRAGMA shrink_memory")


async def test_a_file_that_cannot_be_made_is_an_error_of_that_call_alone(tmp_path):
    (tmp_path / "state").write_text("in the way")
    async with storing(tmp_path, SHORT) as (stage, store):
        with pytest.raises(UnavailableError):
            await store.start(answer(), ask("m"))
        await store.put(answer(), EVENTS)  # only logged
        with await stage.kernel.generate(ask("m")) as other:
            assert text_of(await collect(other))
        (tmp_path / "state").unlink()
        await store.put(answer(), EVENTS)
        assert await read(store) == EVENTS


def test_a_batch_that_does_not_follow_the_last_one_is_refused(tmp_path):
    file = AnswerFile(tmp_path / "answers.db")
    file.insert(answer(), request=ask("m"))
    file.append("a", 0, EVENTS[:2], USAGE, gets_on=True)
    for first in (0, 1, 3):
        with pytest.raises((NotFoundError, sqlite3.IntegrityError)):
            file.append("a", first, EVENTS, USAGE, gets_on=True)
    file.append("a", 2, EVENTS[2:], USAGE, gets_on=True)
    assert list(file.page("a", 0).events) == EVENTS
    file.close()
