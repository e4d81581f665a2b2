"""The kernel's end of the channel to a worker."""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager

import pytest

from lmx_kernel.runtime.channel import Channel
from lmx_kernel.worker.messages import Beat, Message, Warned, decode, encode, length_of

MESSAGES = [Warned("a"), Beat(7), Warned("b" * 300_000), Warned("c")]


@asynccontextmanager
async def opened(on_message):
    """Yield a channel and the worker's socket."""
    ours, theirs = socket.socketpair()
    channel = Channel(on_message)
    loop = asyncio.get_running_loop()
    await loop.create_unix_connection(lambda: channel, sock=ours)
    theirs.setblocking(False)
    with theirs:
        yield channel, theirs
        channel.close()


async def write(theirs, data, size):
    for start in range(0, len(data), size):
        await asyncio.get_running_loop().sock_sendall(theirs, data[start : start + size])
        await asyncio.sleep(0)


@pytest.mark.parametrize("size", [1 << 20, 4099, 3])
async def test_however_messages_are_cut_they_come_whole_and_in_order(size):
    messages = MESSAGES if size > 3 else [Warned("a"), Beat(7), Warned("c")]
    got: list[Message] = []
    async with opened(got.append) as (channel, theirs):
        await write(theirs, b"".join(map(encode, messages)), size)
        theirs.shutdown(socket.SHUT_WR)
        assert await channel.ended is None
    assert got == messages


async def test_whoever_waits_for_a_message_goes_first():
    done = asyncio.get_running_loop().create_future()
    order = []

    def take(message):
        order.append(message)
        if not done.done():
            done.set_result(None)

    async def wait():
        await done
        order.append("woken")

    waiter = asyncio.ensure_future(wait())
    async with opened(take) as (channel, theirs):
        await write(theirs, encode(Warned("1")) + encode(Warned("2")) + encode(Warned("3")), 1000)
        theirs.shutdown(socket.SHUT_WR)
        await channel.ended
    await waiter
    assert order == [Warned("1"), "woken", Warned("2"), Warned("3")]


@pytest.mark.parametrize("frame", [b"\x01\x00\x00\x00\xc1", b"\x03\x00\x00\x00abc"])
async def test_what_cannot_be_read_ends_it_with_the_reason(frame):
    got: list[Message] = []
    async with opened(got.append) as (channel, theirs):
        await write(theirs, encode(Warned("a")) + frame + encode(Warned("b")), 1000)
        assert isinstance(await channel.ended, Exception)
        await asyncio.sleep(0)
    assert got == [Warned("a")], "nothing after it is taken for a message"


async def test_a_message_that_nobody_can_handle_ends_it_with_the_reason():
    def fail(message):
        raise RuntimeError(message)

    async with opened(fail) as (channel, theirs):
        await write(theirs, encode(Warned("x")), 1000)
        assert str(await channel.ended) == str(Warned("x"))


async def test_messages_of_one_turn_are_sent_together_and_those_nobody_waits_for_with_them():
    async with opened(lambda _: None) as (channel, theirs):
        channel.send(Warned("later"), later=True)
        await asyncio.sleep(0)
        channel.send(Warned("1"), later=False)
        channel.send(Warned("2"), later=False)
        data = await asyncio.get_running_loop().sock_recv(theirs, 1000)
    texts = []
    while data:
        size = 4 + length_of(data[:4])
        texts.append(decode(data[4:size]))
        data = data[size:]
    assert texts == [Warned("later"), Warned("1"), Warned("2")]


async def test_a_worker_that_is_gone_is_sent_nothing():
    async with opened(lambda _: None) as (channel, theirs):
        theirs.close()
        await channel.ended
        channel.send(Warned("a"), later=False)
        await asyncio.sleep(0)
