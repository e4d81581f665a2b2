"""The stream of what happens."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager

from lmx_admin_api.routes.events import TYPES, Backlog

from lmx_kernel.events import LoadStarted, ModelUnloaded, Stopping
from lmx_kernel.testing.fake_model import FakeModel


class Reader:
    """Reads a stream of events."""

    def __init__(self, response):
        self.response = response
        self._lines = response.aiter_lines()

    async def line(self):
        async with asyncio.timeout(20):
            return await anext(self._lines)

    async def rest(self):
        """Return the lines up to the end of the stream."""
        async with asyncio.timeout(20):
            return [line async for line in self._lines]

    async def event(self):
        """Return the next event; comments are passed over."""
        found = {}
        while True:
            line = await self.line()
            if line.startswith(":"):
                continue
            if not line and found:
                data = json.loads(found["data"])
                assert (str(data["id"]), data["type"]) == (found["id"], found["event"])
                return data
            if line:
                name, _, value = line.partition(": ")
                found[name] = value

    async def until(self, kind):
        """Return the types of the events up to one of this type."""
        types = []
        while not types or types[-1] != kind:
            types.append((await self.event())["type"])
        return types


@asynccontextmanager
async def listening(http, **query):
    async with http.stream("GET", "/admin/events", params=query) as response:
        assert response.headers["content-type"] == "text/event-stream"
        reader = Reader(response)
        assert await reader.line() == ": keep-alive"
        yield reader


async def test_a_load_and_an_unload_are_told_as_they_happen(serve):
    async with serve({"m": FakeModel(load_s=0.05)}) as api, listening(api.http) as reader:
        await api.post("models/load", model="m")
        types = await reader.until("model_loaded")
        assert types[0] == "load_started"
        assert "load_progressed" in types
        await api.post("models/unload", model="m")
        told = await reader.event()
        assert told["type"] == "model_unloaded"
        assert told["data"] == {"model": "m", "reason": "asked"}
        assert told["id"] == len(types) + 1
        assert told["at"] > 1_700_000_000


async def test_only_the_types_that_were_asked_for_are_told(serve):
    async with serve({"m": FakeModel()}) as api:
        async with listening(api.http, types="model_loaded, request_finished") as reader:
            await api.answer("m")
            assert [(await reader.event())["type"] for _ in range(2)] == [
                "model_loaded",
                "request_finished",
            ]
        answer = await api.get("events", types="model_loaded,nonsense")
        error = answer.json()["error"]
        assert (answer.status_code, error["param"]) == (400, "types")
        assert "nonsense" in error["message"]
        assert "model_loaded" in error["message"]


async def test_every_client_is_told_everything(serve):
    async with (
        serve({"m": FakeModel()}) as api,
        listening(api.http) as one,
        listening(api.http) as other,
    ):
        await api.post("models/load", model="m")
        assert await one.until("model_loaded") == await other.until("model_loaded")


async def test_silence_is_broken_by_comments(serve):
    async with serve({}, heartbeat_s=0.02) as api, listening(api.http) as reader:
        lines = [await reader.line() for _ in range(4)]
        assert ": keep-alive" in lines
        assert not any(line.startswith("data") for line in lines)


async def test_a_client_that_leaves_is_forgotten(serve):
    async with serve({"m": FakeModel()}) as api:
        listeners = api.stage.assembly.bus._listeners
        before = len(listeners)
        async with listening(api.http):
            assert len(listeners) == before + 1
        async with asyncio.timeout(20):
            while len(listeners) > before:
                await asyncio.sleep(0.01)


async def test_a_daemon_that_stops_ends_the_stream(serve_daemon):
    async with serve_daemon({"m": FakeModel()}) as daemon, listening(daemon.http) as reader:
        stopped = asyncio.create_task(daemon.daemon.stop())
        assert await reader.until("stopping") == ["stopping"]
        assert not any(await reader.rest())
        assert await stopped == 0


async def test_a_slow_reader_loses_the_oldest_and_is_told():
    backlog = Backlog(TYPES, 2)
    for number in range(5):
        backlog.put(LoadStarted(model=str(number)))
    note, *rest = await backlog.take(1)
    assert (note[0], note[2]) == ("dropped", {"count": 3})
    assert [data["model"] for _, _, data in rest] == ["3", "4"]
    backlog.put(ModelUnloaded(model="5", reason="asked"))
    assert [kind for kind, _, _ in await backlog.take(1)] == ["model_unloaded"]
    assert await backlog.take(0.01) == []


async def test_a_reader_who_does_not_want_to_hear_of_the_stop_is_woken_all_the_same():
    backlog = Backlog({"model_loaded"}, 2)
    waiting = asyncio.create_task(backlog.take(60))
    await asyncio.sleep(0)
    backlog.put(Stopping())
    assert await waiting == []
