"""What the client of a websocket may take of the server: bytes, messages, time and connections."""

from __future__ import annotations

import asyncio
import gc
import random
import weakref

import pytest
from structlog.testing import capture_logs

from lmx_kernel.http.websocket_inbox import OVERHEAD_BYTES

KIB, MIB = 1024, 1024 * 1024
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


def frame(kind: int, data: bytes = b"", *, is_last: bool = True) -> bytes:
    """Return a frame of a client, with a mask that changes nothing."""
    size = bytes([len(data)]) if len(data) < 126 else b"\x7e" + len(data).to_bytes(2, "big")
    size = bytes([size[0] | 0x80]) + size[1:]
    return bytes([kind | (0x80 if is_last else 0)]) + size + bytes(4) + data


def close_code(received: bytes) -> int | None:
    """Return the code of the close frame in what a server sent."""
    start = received.rfind(b"\x88")
    return None if start < 0 else int.from_bytes(received[start + 2 : start + 4], "big")


@pytest.fixture
def raw(handshake):
    """Connect by hand to a path, for what no proper client does."""

    async def connect(running, path=b"/socket"):
        client = await running.connect(handshake.replace(b"/socket", path))
        assert (await client.answer()).status == 101
        return client

    return connect


async def test_a_message_is_as_long_as_a_body_may_be(serve, closed):
    running = await serve(max_body_bytes=100_000)
    async with running.websocket("/socket") as client:
        await client.send("x" * 100_000)
        assert len(await client.recv()) == 100_000
        await client.send("x" * 100_001)
        assert (await closed(client))[0] == 1009
    async with running.websocket("/socket") as client:
        await client.send(["x" * 50_000] * 3)
        assert (await closed(client))[0] == 1009


async def test_who_sends_far_too_much_can_read_why(serve, closed):
    running = await serve(max_body_bytes=100_000)
    async with running.websocket("/socket", max_size=None) as client:
        sending = asyncio.ensure_future(client.send("x" * 32 * MIB))
        assert (await closed(client))[0] == 1009
        await asyncio.wait({sending})


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frame(TEXT, b"\xff\xfe"), 1007),
        (frame(3), 1002),
        (frame(0, b"continues nothing"), 1002),
        (frame(PING, b"x" * 126), 1002),
        (b"\x81\x05hello", 1002),  # without a mask
        (frame(CLOSE, (1004).to_bytes(2, "big")), 1002),
        (frame(TEXT, is_last=False) + frame(TEXT), 1002),
    ],
)
async def test_what_breaks_the_protocol_closes(serve, raw, data, code):
    running = await serve()
    with capture_logs() as lines:
        client = await raw(running)
        client.send(data)
        assert close_code(await client.rest()) == code
        client.drop()
        await running.server.drain(10)
    assert [line["log_level"] for line in lines] == ["info"]


async def test_unread_messages_make_the_client_wait(serve, until):
    """However short they are; and nothing is lost of them."""
    running = await serve(max_body_bytes=64 * KIB)
    async with running.websocket("/deaf", max_queue=None) as client:
        flood = [str(number) for number in range(2000)]
        sending = asyncio.ensure_future(send_all(client, flood))
        [socket] = running.shell._websockets._open
        intake = socket._connection.intake
        await until(lambda: intake.inbox.size_bytes > 64 * KIB)
        assert intake.is_held
        assert len(intake.inbox) < 1000  # and one part of what came
        running.toy.sockets.listening.set()
        assert [await client.recv() for _ in flood] == flood
        await sending


async def test_pings_are_answered_while_many_messages_wait(serve, monkeypatch):
    """Some clients send all they have at once, and leave if a ping behind it is not answered."""
    monkeypatch.setattr("lmx_kernel.http.websocket_calls.MAX_CALLS", 1)
    running = await serve()
    async with running.websocket("/socket") as client:
        await client.send("wait")
        await send_all(client, ["hello"] * 3000)
        await (await client.ping())
        running.toy.slow.finish.set()
        assert await client.recv() == "done"


async def send_all(client, messages):
    for message in messages:
        await client.send(message)


async def test_unread_bytes_make_the_client_wait(serve, until):
    running = await serve(max_body_bytes=64 * KIB)
    async with running.websocket("/deaf") as client:
        sending = asyncio.ensure_future(send_all(client, ["x" * 32 * KIB] * 100))
        [socket] = running.shell._websockets._open
        intake = socket._connection.intake
        await until(lambda: intake.is_held)
        assert running.shell._bodies.used_bytes < 128 * KIB + 256 * KIB  # and one read of the loop
        running.toy.sockets.listening.set()
        for _ in range(100):
            await client.recv()
        await sending


async def test_messages_count_as_bodies_do(serve, closed, until):
    """Those that are not read, those that are not complete, and those that are worked on."""
    running = await serve(max_body_bytes=50_000, max_bodies_bytes=50_000)
    bodies = running.shell._bodies
    busy = await running.websocket("/socket")
    await busy.send("wait")
    await running.toy.slow.started.wait()
    assert bodies.used_bytes == len("wait") + OVERHEAD_BYTES
    idle = await running.websocket("/deaf")
    await idle.send("x" * 30_000)
    await until(lambda: bodies.used_bytes == 30_004 + 2 * OVERHEAD_BYTES)
    other = await running.websocket("/socket")
    await other.send("x" * 30_000)
    assert (await closed(other))[0] == 1013
    running.toy.sockets.listening.set()
    await busy.close()
    await idle.close()
    await until(lambda: not running.shell._websockets._open)
    assert bodies.used_bytes == 0


async def test_a_message_has_as_long_to_arrive_as_a_body(serve, raw):
    running = await serve(body_timeout_s=0.1)
    client = await raw(running)
    client.send(frame(TEXT, b"begins", is_last=False))
    assert close_code(await client.rest()) == 1008


async def test_an_idle_socket_that_answers_pings_stays(serve):
    running = await serve(keep_alive_s=0.08)
    pings = asyncio.Event()
    async with running.websocket("/socket") as client:
        count = 0
        answer = client.protocol.recv_frame

        def note(received):
            nonlocal count
            count += received.opcode == PING
            if count == 5:
                pings.set()
            answer(received)

        client.protocol.recv_frame = note
        await pings.wait()
        await client.send("hello")
        assert await client.recv() == "hello"


async def test_a_socket_that_answers_no_pings_is_closed(serve, raw, until):
    running = await serve(keep_alive_s=0.08)
    with capture_logs() as lines:
        client = await raw(running)
        assert close_code(await client.rest()) == 1011
        client.drop()
        await until(lambda: lines)
    assert lines[0]["cause"] == "no_pong"


async def test_a_client_that_does_not_read_is_cut_off(serve, raw, until):
    running = await serve(write_timeout_s=0.1)
    with capture_logs() as lines:
        client = await raw(running)
        client.reader._transport.pause_reading()
        client.send(frame(TEXT, b"flood"))
        await until(lambda: len(lines) == 2)
    assert [line["cause"] for line in lines] == ["client_left", "reader_stalled"]


async def test_pings_of_a_client_that_does_not_read_take_no_memory(serve, raw, until):
    running = await serve()
    client = await raw(running)
    client.reader._transport.pause_reading()
    client.send(frame(TEXT, b"flood"))
    [socket] = running.shell._websockets._open
    connection = socket._connection
    await until(lambda: not connection._writable.is_set())
    before = connection._transport.get_write_buffer_size()
    for _ in range(100):
        client.send(frame(PING, b"x" * 125) * 100)
        await client.writer.drain()
    client.send(frame(TEXT, b"hello"))
    await until(lambda: len(socket.calls._running) == 2)
    assert connection._transport.get_write_buffer_size() <= before


async def test_a_flood_of_small_frames_leaves_others_their_turn(serve, raw):
    running = await serve()
    flood = frame(TEXT, is_last=False) + frame(0, is_last=False) * 20_000 + frame(0, b"end")
    client = await raw(running)
    client.send(flood)
    assert (await running.http.get("/health")).status_code == 200
    assert (await client.reader.readexactly(5)) == b"\x81\x03end"


async def test_a_client_that_does_not_reply_to_a_close_is_cut_off(serve, raw, monkeypatch):
    monkeypatch.setattr("lmx_kernel.http.websocket_connection.PART_S", 0.1)
    running = await serve()
    client = await raw(running)
    client.send(frame(TEXT, b"close"))
    assert close_code(await client.rest()) == 4001


async def test_sockets_count_as_connections(serve, handshake, until):
    running = await serve(max_connections=2)
    async with running.websocket("/socket") as first, running.websocket("/socket"):
        third = await running.connect(handshake)
        assert (await third.answer()).status == 503
        third.drop()
        await first.close()
        await until(lambda: running.server._connections.count == 1)
        async with running.websocket("/socket") as third:
            await third.send("hello")
            assert await third.recv() == "hello"


@pytest.mark.parametrize("count", [40, pytest.param(2000, marks=pytest.mark.full)])
async def test_no_mutated_frame_does_harm(serve, handshake, until, count):
    """Each is answered, closed with a code, or waited for; nothing of it stays."""
    running = await serve(body_timeout_s=0.2, keep_alive_s=0.5, max_body_bytes=100_000)
    dice = random.Random(4)
    seeds = [
        frame(TEXT, b"hello") + frame(CLOSE, b"\x03\xe8"),
        frame(BINARY, bytes(300), is_last=False) + frame(0, bytes(9)) + frame(PING, b"1"),
        frame(TEXT, b"busy") + frame(PONG) + frame(TEXT, b"bug" * 30),
        frame(CLOSE) + frame(TEXT, b"late"),
    ]
    sockets = []

    async def attempt(data):
        client = await running.connect(handshake)
        assert (await client.answer()).status == 101
        sockets.extend(weakref.ref(socket) for socket in running.shell._websockets._open)
        client.send(data)
        await client.rest()
        client.drop()

    with capture_logs() as lines:
        for _ in range(count // 20):
            mutants = []
            for _ in range(20):
                data = bytearray(dice.choice(seeds))
                for _ in range(dice.randint(1, 4)):
                    data[dice.randrange(len(data))] = dice.randrange(256)
                mutants.append(bytes(data))
            await asyncio.gather(*map(attempt, mutants))
        await until(lambda: not running.server._connections.connections)
    assert not [line for line in lines if line["log_level"] != "info"]
    assert running.shell._bodies.used_bytes == 0
    await until(lambda: not running.shell._bodies.hasty)
    gc.collect()
    assert not [socket for socket in sockets if socket() is not None]
