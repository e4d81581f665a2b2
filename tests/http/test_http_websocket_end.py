"""How websockets end: when the server stops, and when their surface is gone."""

from __future__ import annotations

import asyncio

from lmx_kernel.http.app import build_app
from lmx_kernel.interfaces import WebSocketRoute


async def test_an_idle_socket_is_closed_when_the_server_stops(serve, closed):
    running = await serve()
    async with running.websocket("/socket") as client:
        await client.send("hello")
        await client.recv()
        draining = asyncio.ensure_future(running.server.drain(10))
        assert await closed(client) == (1001, "the server is stopping")
        assert await draining


async def test_a_server_that_stops_waits_for_what_runs_and_begins_nothing(serve, closed):
    running = await serve()
    async with running.websocket("/socket") as client:
        await client.send("endless")  # nobody waits for it
        await client.send("wait")
        await running.toy.slow.started.wait()
        draining = asyncio.ensure_future(running.server.drain(10))
        await asyncio.sleep(0)
        await client.send("hello")
        assert (await client.recv()).startswith("error: unavailable: The server is stopping")
        running.toy.slow.finish.set()
        assert await client.recv() == "done"
        assert (await closed(client))[0] == 1001
        assert await draining


async def test_what_still_runs_in_the_end_is_closed_too(serve, closed):
    running = await serve()
    async with running.websocket("/socket") as client:
        await client.send("wait")
        await running.toy.slow.started.wait()
        assert not await running.server.drain(0)
        stopping = asyncio.ensure_future(running.server.stop())
        assert (await closed(client))[0] == 1001
        await stopping
    assert running.toy.slow.cancelled.is_set()


async def test_nobody_connects_to_a_server_that_stops(serve, refused, handshake):
    running = await serve()
    client = await running.connect()
    await asyncio.sleep(0)
    running.shell.is_draining = True
    client.send(handshake)
    assert (await client.answer()).status == 503


class Small:
    """Has one of the toy's websockets, and is named as a test wants it."""

    prefix, scope = "/small", "inference"

    def __init__(self, name, toy):
        self.name, self.toy = name, toy

    def routes(self):
        return []

    def websocket_routes(self):
        return [WebSocketRoute(path="/socket", handler=self.toy.sockets.serve)]


async def test_sockets_of_a_surface_that_is_gone_are_closed_when_their_work_is_done(
    serve, closed, health, refused
):
    running = await serve()
    async with running.websocket("/socket") as kept, running.websocket("/toy/socket") as idle:
        async with running.websocket("/toy/socket") as busy:
            await busy.send("wait")
            await running.toy.slow.started.wait()
            running.shell.app = build_app([Small("toy", running.toy)], health)
            assert await closed(idle) == (1001, "this API was switched off")
            running.toy.slow.finish.set()
            assert await busy.recv() == "done"
            assert (await closed(busy))[0] == 1001
        await kept.send("hello")
        assert await kept.recv() == "hello"
        assert (await refused(running.websocket("/toy/socket")))[0] == 404
        running.shell.app = build_app([Small("another", running.toy)], health)
        assert (await closed(kept))[0] == 1001


async def test_work_of_a_surface_that_is_gone_has_as_long_as_at_the_end(serve, closed, health):
    running = await serve(drain_s=0.1)
    async with running.websocket("/toy/socket") as client:
        await client.send("wait")
        await running.toy.slow.started.wait()
        running.shell.app = build_app([], health)
        assert (await closed(client))[0] == 1001
    await running.toy.slow.cancelled.wait()
